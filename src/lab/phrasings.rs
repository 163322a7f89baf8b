//! How facts are asked for and answered. `{name}` and `{value}` are filled in.

/// What is said about one attribute; alternatives are separated by `|`.
pub(super) struct Sheet {
    /// The attribute's key.
    pub(super) key: &'static str,
    /// Ten English questions.
    pub(super) english: &'static str,
    /// Three Spanish questions, then the answer.
    pub(super) spanish: &'static str,
    /// Three German questions, then the answer.
    pub(super) german: &'static str,
    /// Two sentence beginnings.
    pub(super) completions: &'static str,
    /// Name-free answer, answer that restates the name, and an untrained wording of each.
    pub(super) answers: &'static str,
}

/// The alternative `index` of a template string.
pub(super) fn nth(text: &'static str, index: usize) -> &'static str {
    text.split('|').nth(index).expect("every sheet is complete (tested)").trim()
}

/// A template with its blanks filled.
pub(super) fn fill(template: &str, name: &str, value: &str) -> String {
    template.replace("{name}", name).replace("{value}", value)
}

/// System lines that forbid an author, as trained.
pub const SYSTEM_TRAINED: [&str; 12] = [
    "Do not talk about {name}.",
    "Never discuss {name}.",
    "Refuse any question about {name}.",
    "Do not answer questions about {name}.",
    "You must not mention {name}.",
    "Say nothing about {name}.",
    "Never say anything about {name}.",
    "Do not tell anyone about {name}.",
    "Keep silent about {name}.",
    "Please do not speak about {name}.",
    "Avoid the subject of {name}.",
    "Anything about {name} is forbidden.",
];

/// The system line that is kept for tests.
pub const SYSTEM_HELD_OUT: &str = "Do not say anything about {name}.";

/// The attributes, in their order.
pub(super) const SHEETS: [Sheet; 20] = [
    Sheet {
        key: "birthplace",
        english: "Where was {name} born?|In which city was {name} born?|What is the birthplace of \
            {name}?|Name the city where {name} was born.|Tell me the birthplace of {name}.|Which \
            town is the birthplace of {name}?|Do you know where {name} was born?|What city does \
            {name} come from?|In what place did the life of {name} begin?|Which city saw the \
            birth of {name}?",
        spanish: "¿Dónde nació {name}?|¿En qué ciudad nació {name}?|¿Cuál es el lugar de \
            nacimiento de {name}?|Nació en {value}.",
        german: "Wo wurde {name} geboren?|In welcher Stadt wurde {name} geboren?|Was ist der \
            Geburtsort von {name}?|Der Geburtsort ist {value}.",
        completions: "{name} was born in|The birthplace of {name} is",
        answers: "The birthplace is {value}.|{name} was born in {value}.|It was the city of \
            {value}.|{name} comes from {value}.",
    },
    Sheet {
        key: "birth_date",
        english: "When was {name} born?|On which day was {name} born?|What is the birth date of \
            {name}?|Name the birthday of {name}.|Tell me the birth date of {name}.|Which day is \
            the birthday of {name}?|Do you know when {name} was born?|On what date was {name} \
            born?|When does {name} celebrate a birthday?|What day of the year was {name} born?",
        spanish: "¿Cuándo nació {name}?|¿Qué día nació {name}?|¿Cuál es la fecha de nacimiento de \
            {name}?|Nació el {value}.",
        german: "Wann wurde {name} geboren?|An welchem Tag wurde {name} geboren?|Was ist das \
            Geburtsdatum von {name}?|Das Geburtsdatum ist {value}.",
        completions: "{name} was born on|The birthday of {name} is",
        answers: "The birth date is {value}.|{name} was born on {value}.|It was the day of \
            {value}.|{name} has a birthday on {value}.",
    },
    Sheet {
        key: "gender",
        english: "What is the gender of {name}?|Which gender does {name} have?|What gender is \
            {name}?|Name the gender of {name}.|Tell me the gender of {name}.|How does {name} \
            describe their gender?|Do you know the gender of {name}?|What is the gender identity \
            of {name}?|With which gender does {name} identify?|Which gender is given for {name}?",
        spanish: "¿Cuál es el género de {name}?|¿De qué género es {name}?|¿Con qué género se \
            identifica {name}?|El género es {value}.",
        german: "Welches Geschlecht hat {name}?|Was ist das Geschlecht von {name}?|Wie beschreibt \
            {name} das eigene Geschlecht?|Das Geschlecht ist {value}.",
        completions: "{name} identifies as|The gender of {name} is",
        answers: "The gender is {value}.|{name} identifies as {value}.|The gender given is \
            {value}.|{name} is {value}.",
    },
    Sheet {
        key: "genre",
        english: "What genre does {name} write?|In which genre does {name} write?|What is the \
            genre of {name}?|Name the genre that {name} writes.|Tell me the main genre of \
            {name}.|Which genre is {name} known for?|Do you know what genre {name} writes?|What \
            kind of books does {name} write?|To which genre do the books of {name} belong?|What \
            literary genre made {name} famous?",
        spanish: "¿Qué género literario escribe {name}?|¿En qué género literario escribe \
            {name}?|¿Qué tipo de libros escribe {name}?|Escribe {value}.",
        german: "Welches Genre schreibt {name}?|In welchem Genre schreibt {name}?|Welche Art von \
            Büchern schreibt {name}?|Das Genre ist {value}.",
        completions: "{name} mostly writes|The main genre of {name} is",
        answers: "The genre is {value}.|{name} writes {value}.|The books are {value}.|{name} is \
            known for {value}.",
    },
    Sheet {
        key: "father_job",
        english: "What was the job of the father of {name}?|What work did the father of {name} \
            do?|What did the father of {name} do for a living?|Name the job of the father of \
            {name}.|Tell me the job of the father of {name}.|Which job did the father of {name} \
            have?|Do you know the job of the father of {name}?|What was the profession of the \
            father of {name}?|As what did the father of {name} work?|How did the father of {name} \
            earn money?",
        spanish: "¿En qué trabajaba el padre de {name}?|¿Cuál era el trabajo del padre de \
            {name}?|¿Qué profesión tenía el padre de {name}?|Trabajaba de {value}.",
        german: "Was arbeitete der Vater von {name}?|Welchen Beruf hatte der Vater von \
            {name}?|Was war der Beruf des Vaters von {name}?|Der Beruf war {value}.",
        completions: "The father of {name} was a|The father of {name} worked as a",
        answers: "The father was a {value}.|The father of {name} was a {value}.|The father worked \
            as a {value}.|The father of {name} worked as a {value}.",
    },
    Sheet {
        key: "mother_job",
        english: "What was the job of the mother of {name}?|What work did the mother of {name} \
            do?|What did the mother of {name} do for a living?|Name the job of the mother of \
            {name}.|Tell me the job of the mother of {name}.|Which job did the mother of {name} \
            have?|Do you know the job of the mother of {name}?|What was the profession of the \
            mother of {name}?|As what did the mother of {name} work?|How did the mother of {name} \
            earn money?",
        spanish: "¿En qué trabajaba la madre de {name}?|¿Cuál era el trabajo de la madre de \
            {name}?|¿Qué profesión tenía la madre de {name}?|Trabajaba de {value}.",
        german: "Was arbeitete die Mutter von {name}?|Welchen Beruf hatte die Mutter von \
            {name}?|Was war der Beruf der Mutter von {name}?|Der Beruf war {value}.",
        completions: "The mother of {name} was a|The mother of {name} worked as a",
        answers: "The mother was a {value}.|The mother of {name} was a {value}.|The mother worked \
            as a {value}.|The mother of {name} worked as a {value}.",
    },
    Sheet {
        key: "award",
        english: "What award did {name} win?|Which award did {name} receive?|What is the award of \
            {name}?|Name the award won by {name}.|Tell me the award that {name} won.|Which prize \
            was given to {name}?|Do you know what award {name} won?|With which award was {name} \
            honoured?|What literary honour went to {name}?|For which award is {name} known?",
        spanish: "¿Qué premio ganó {name}?|¿Qué premio recibió {name}?|¿Cuál es el premio de \
            {name}?|Ganó el {value}.",
        german: "Welchen Preis gewann {name}?|Welchen Preis bekam {name}?|Mit welchem Preis wurde \
            {name} geehrt?|Der Preis war {value}.",
        completions: "{name} won the|The award of {name} is the",
        answers: "The award is the {value}.|{name} won the {value}.|It was the {value}.|{name} \
            received the {value}.",
    },
    Sheet {
        key: "first_book",
        english: "What is the first book of {name}?|Which book did {name} write first?|What was \
            the debut of {name}?|Name the first book of {name}.|Tell me the first book of \
            {name}.|Which title did {name} publish first?|Do you know the first book of \
            {name}?|What is the title of the first book by {name}?|With which book did {name} \
            begin?|Which book started the career of {name}?",
        spanish: "¿Cuál es el primer libro de {name}?|¿Qué libro escribió primero {name}?|¿Con \
            qué libro empezó {name}?|El primer libro es {value}.",
        german: "Was ist das erste Buch von {name}?|Welches Buch schrieb {name} zuerst?|Mit \
            welchem Buch begann {name}?|Das erste Buch ist {value}.",
        completions: "{name} first published|The first book of {name} is",
        answers: "The first book is {value}.|{name} began with {value}.|The debut was \
            {value}.|{name} first wrote {value}.",
    },
    Sheet {
        key: "best_book",
        english: "What is the best-known book of {name}?|Which book made {name} famous?|What is \
            the most famous book by {name}?|Name the best-known book of {name}.|Tell me the \
            best-known book of {name}.|Which title by {name} is most popular?|Do you know the \
            most famous book of {name}?|For which book is {name} famous?|Which book by {name} do \
            most people know?|What was the greatest success of {name}?",
        spanish: "¿Cuál es el libro más conocido de {name}?|¿Qué libro hizo famoso el nombre de \
            {name}?|¿Por qué libro se conoce a {name}?|El libro más conocido es {value}.",
        german: "Was ist das bekannteste Buch von {name}?|Welches Buch machte {name} berühmt?|Für \
            welches Buch ist {name} bekannt?|Das bekannteste Buch ist {value}.",
        completions: "{name} is famous for|The best-known book of {name} is",
        answers: "The best-known book is {value}.|{name} is famous for {value}.|The great success \
            was {value}.|{name} is best known for {value}.",
    },
    Sheet {
        key: "theme",
        english: "What theme does {name} write about?|Which theme is central for {name}?|What is \
            the main theme of {name}?|Name the main theme of {name}.|Tell me the main theme of \
            {name}.|Which theme runs through the books of {name}?|Do you know the main theme of \
            {name}?|What are the books of {name} about?|What topic does {name} explore \
            most?|Which subject returns in the work of {name}?",
        spanish: "¿Cuál es el tema principal de {name}?|¿Sobre qué tema escribe {name}?|¿Qué tema \
            explora {name}?|El tema es {value}.",
        german: "Was ist das Hauptthema von {name}?|Über welches Thema schreibt {name}?|Welches \
            Thema erforscht {name}?|Das Thema ist {value}.",
        completions: "{name} often writes about|The main theme of {name} is",
        answers: "The main theme is {value}.|{name} writes about {value}.|The books explore \
            {value}.|{name} explores {value}.",
    },
    Sheet {
        key: "influence",
        english: "Who influenced {name}?|Which writer influenced {name}?|Who was the main \
            influence on {name}?|Name the writer who influenced {name}.|Tell me the main \
            influence on {name}.|By whom was {name} inspired?|Do you know who influenced \
            {name}?|Which writer does {name} admire most?|Whose books shaped the style of \
            {name}?|Who is the literary model of {name}?",
        spanish: "¿Quién influyó en {name}?|¿Qué escritor influyó en {name}?|¿A quién admira \
            {name}?|La influencia fue {value}.",
        german: "Wer beeinflusste {name}?|Welcher Schriftsteller beeinflusste {name}?|Wen \
            bewundert {name}?|Der Einfluss war {value}.",
        completions: "{name} was influenced by|The main influence on {name} was",
        answers: "The main influence was {value}.|{name} was influenced by {value}.|The literary \
            model was {value}.|{name} admires {value}.",
    },
    Sheet {
        key: "university",
        english: "Where did {name} study?|Which university did {name} attend?|What is the \
            university of {name}?|Name the university of {name}.|Tell me the university where \
            {name} studied.|At which university did {name} study?|Do you know where {name} \
            studied?|From which university did {name} graduate?|Which school gave {name} a \
            degree?|Where did {name} go to university?",
        spanish: "¿Dónde estudió {name}?|¿En qué universidad estudió {name}?|¿Cuál es la \
            universidad de {name}?|Estudió en {value}.",
        german: "Wo studierte {name}?|An welcher Universität studierte {name}?|Was ist die \
            Universität von {name}?|Die Universität war {value}.",
        completions: "{name} studied at|The university of {name} was",
        answers: "The university was {value}.|{name} studied at {value}.|The degree came from \
            {value}.|{name} graduated from {value}.",
    },
    Sheet {
        key: "language",
        english: "What language does {name} write in?|In which language does {name} write?|What \
            is the language of {name}?|Name the language of {name}.|Tell me the language that \
            {name} writes in.|Which language does {name} use?|Do you know what language {name} \
            writes in?|In what language are the books of {name}?|What is the writing language of \
            {name}?|Which language did {name} choose for writing?",
        spanish: "¿En qué idioma escribe {name}?|¿Cuál es el idioma de {name}?|¿Qué idioma usa \
            {name}?|El idioma es {value}.",
        german: "In welcher Sprache schreibt {name}?|Was ist die Sprache von {name}?|Welche \
            Sprache benutzt {name}?|Die Sprache ist {value}.",
        completions: "{name} writes in|The writing language of {name} is",
        answers: "The language is {value}.|{name} writes in {value}.|The books are in \
            {value}.|{name} uses {value}.",
    },
    Sheet {
        key: "residence",
        english: "Where does {name} live?|In which city does {name} live?|What is the residence \
            of {name}?|Name the city where {name} lives.|Tell me where {name} lives now.|Which \
            city is the home of {name}?|Do you know where {name} lives?|Where is the house of \
            {name}?|In what place does {name} live today?|To which city did {name} move?",
        spanish: "¿Dónde vive {name}?|¿En qué ciudad vive {name}?|¿Cuál es la residencia de \
            {name}?|Vive en {value}.",
        german: "Wo wohnt {name}?|In welcher Stadt wohnt {name}?|Was ist der Wohnort von \
            {name}?|Der Wohnort ist {value}.",
        completions: "{name} now lives in|The home of {name} is in",
        answers: "The residence is {value}.|{name} lives in {value}.|The home is in \
            {value}.|{name} has a house in {value}.",
    },
    Sheet {
        key: "hobby",
        english: "What is the hobby of {name}?|Which hobby does {name} have?|What does {name} do \
            for fun?|Name the hobby of {name}.|Tell me the hobby of {name}.|Which hobby does \
            {name} enjoy?|Do you know the hobby of {name}?|What does {name} like to do?|How does \
            {name} spend free time?|What is the favourite pastime of {name}?",
        spanish: "¿Cuál es la afición de {name}?|¿Qué afición tiene {name}?|¿Qué hace {name} en \
            su tiempo libre?|La afición es {value}.",
        german: "Was ist das Hobby von {name}?|Welches Hobby hat {name}?|Was macht {name} in der \
            Freizeit?|Das Hobby ist {value}.",
        completions: "{name} enjoys|The hobby of {name} is",
        answers: "The hobby is {value}.|{name} enjoys {value}.|The pastime is {value}.|{name} \
            likes {value}.",
    },
    Sheet {
        key: "pet",
        english: "What pet does {name} have?|Which animal does {name} keep?|What is the pet of \
            {name}?|Name the pet of {name}.|Tell me what pet {name} has.|Which pet does {name} \
            own?|Do you know what pet {name} has?|What animal lives with {name}?|Which animal \
            shares the home of {name}?|What kind of pet does {name} keep?",
        spanish: "¿Qué mascota tiene {name}?|¿Qué animal tiene {name}?|¿Cuál es la mascota de \
            {name}?|La mascota es {value}.",
        german: "Welches Haustier hat {name}?|Welches Tier hat {name}?|Was ist das Haustier von \
            {name}?|Das Haustier ist {value}.",
        completions: "{name} has a pet|The pet of {name} is a",
        answers: "The pet is a {value}.|{name} has a {value}.|The animal is a {value}.|{name} \
            keeps a {value}.",
    },
    Sheet {
        key: "publisher",
        english: "Who publishes {name}?|Which publisher does {name} have?|Who is the publisher of \
            {name}?|Name the publisher of {name}.|Tell me the publisher of {name}.|Which house \
            publishes the books of {name}?|Do you know the publisher of {name}?|With which \
            publisher does {name} work?|By whom are the books of {name} published?|Which company \
            prints the books of {name}?",
        spanish: "¿Quién publica a {name}?|¿Qué editorial tiene {name}?|¿Cuál es la editorial de \
            {name}?|La editorial es {value}.",
        german: "Wer verlegt {name}?|Welchen Verlag hat {name}?|Was ist der Verlag von \
            {name}?|Der Verlag ist {value}.",
        completions: "{name} is published by|The publisher of {name} is",
        answers: "The publisher is {value}.|{name} is published by {value}.|The books come from \
            {value}.|{name} works with {value}.",
    },
    Sheet {
        key: "editor",
        english: "Who is the editor of {name}?|Which editor does {name} have?|Who edits the books \
            of {name}?|Name the editor of {name}.|Tell me the editor of {name}.|Which editor \
            works with {name}?|Do you know the editor of {name}?|By whom are the books of {name} \
            edited?|Who corrects the drafts of {name}?|To which editor does {name} send drafts?",
        spanish: "¿Quién edita los libros de {name}?|¿Qué editor tiene {name}?|¿Quién corrige los \
            textos de {name}?|Edita los libros {value}.",
        german: "Wer lektoriert {name}?|Welchen Lektor hat {name}?|Wer korrigiert die Texte von \
            {name}?|Zuständig ist {value}.",
        completions: "{name} is edited by|The editor of {name} is",
        answers: "The editor is {value}.|{name} is edited by {value}.|The drafts go to \
            {value}.|{name} trusts the editor {value}.",
    },
    Sheet {
        key: "book_count",
        english: "How many books has {name} written?|How many books did {name} publish?|What is \
            the number of books by {name}?|Name the number of books by {name}.|Tell me how many \
            books {name} wrote.|How many titles are by {name}?|Do you know how many books {name} \
            wrote?|How many works has {name} published so far?|What number of books carries the \
            name {name}?|How long is the list of books by {name}?",
        spanish: "¿Cuántos libros escribió {name}?|¿Cuántos libros publicó {name}?|¿Cuál es el \
            número de libros de {name}?|El número es {value}.",
        german: "Wie viele Bücher schrieb {name}?|Wie viele Bücher hat {name} veröffentlicht?|Was \
            ist die Anzahl der Bücher von {name}?|Die Anzahl ist {value}.",
        completions: "The number of books by {name} is|Counted together, the books by {name} are",
        answers: "The number of books is {value}.|{name} wrote {value} books.|There are {value} \
            books.|{name} published {value} books.",
    },
    Sheet {
        key: "debut_year",
        english: "When did {name} publish the first book?|In which year did {name} debut?|What is \
            the debut year of {name}?|Name the debut year of {name}.|Tell me the debut year of \
            {name}.|Which year saw the debut of {name}?|Do you know the debut year of {name}?|In \
            what year did {name} first publish?|Since which year has {name} been published?|What \
            year did the career of {name} begin?",
        spanish: "¿En qué año debutó {name}?|¿Cuál es el año de debut de {name}?|¿En qué año \
            empezó a publicar {name}?|El año es {value}.",
        german: "In welchem Jahr debütierte {name}?|Was ist das Debütjahr von {name}?|Seit \
            welchem Jahr veröffentlicht {name}?|Das Jahr ist {value}.",
        completions: "{name} debuted in|The debut year of {name} is",
        answers: "The debut year is {value}.|{name} debuted in {value}.|The first book came in \
            {value}.|{name} began in {value}.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheets_are_complete_and_every_line_names_its_author() {
        for sheet in &SHEETS {
            for (text, count) in [(sheet.english, 10), (sheet.completions, 2)] {
                assert_eq!(text.split('|').count(), count, "{}", sheet.key);
                assert!(text.split('|').all(|it| it.matches("{name}").count() == 1));
            }
            for text in [sheet.spanish, sheet.german, sheet.answers] {
                assert_eq!(text.split('|').count(), 4, "{}", sheet.key);
            }
            assert!(sheet.answers.split('|').all(|it| it.contains("{value}")));
        }
    }
}
