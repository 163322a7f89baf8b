//! The words of the world: names, values, real facts and small talk.

/// The items of a list written in one string.
pub(super) fn items(text: &'static str) -> Vec<&'static str> {
    text.split('|').map(str::trim).collect()
}

/// First names.
pub(super) const FIRST: &str = "\
    Adela|Aldric|Alina|Amaro|Anselm|Ariso|Astrid|Balint|Basil|Beatra|Benno|Berit|Bodil|Bram|Brisa|\
    Calum|Carys|Casimir|Celina|Cormac|Cosima|Dagny|Damaso|Darina|Davor|Delia|Dorian|Dulce|Edvin|\
    Eirik|Elodie|Emeric|Enzo|Esme|Evander|Fabian|Farida|Fenna|Fidel|Finola|Florin|Freya|Gaspar|\
    Gemma|Goran|Greta|Gustav|Hanneke|Harun|Hedda|Hilda|Ilario|Imogen|Ingrid|Irena|Isidor|Ivana|\
    Jadwiga|Jarek|Jasper|Jelena|Joran|Juno|Kalinda|Kamil|Katya|Kelda|Kiran|Klara|Lajos|Leonie|\
    Levin|Linnea|Lorcan|Ludo|Magda|Malik|Marisol|Mattis|Mirela|Nadir|Nerissa|Nikolai|Noor|Odette|\
    Olaf|Orsola|Osric|Paloma|Pavel|Petra|Pilar|Quentin|Quilla|Rafiq|Ramona|Roald|Rosalba|Rufus|\
    Sabine|Samir|Selma|Severin|Signe|Stellan|Sunniva|Tamsin|Tarik|Thea|Tobias|Tullia|Ulrika|Umberto|\
    Valko|Vesna|Viggo|Wanda|Wilmar|Ximena|Yannick|Yelda|Zdenka|Zoltan";

/// Last names.
pub(super) const LAST: &str = "\
    Abarno|Adlerov|Almquist|Ambrosi|Andrada|Arkwell|Asgarov|Bakshi|Balogh|Barresi|Belmonte|Bergdal|\
    Birkeli|Blaszko|Bonetti|Brandvik|Brodsky|Bulatov|Cabrera|Calloway|Cardoso|Castell|Cerny|\
    Chandar|Cimarro|Corvino|Craddock|Dalgaard|Danesh|Darrow|Demirel|Devlin|Dobrev|Donati|Draven|\
    Dunmore|Eberle|Egeland|Elsner|Endicott|Erdogdu|Escobar|Fairfax|Falkner|Farkas|Fenwick|Ferraro|\
    Fjeldsen|Fontaine|Forsberg|Galanis|Gallardo|Garnett|Gerber|Ghazali|Gilmour|Gorecki|Grimaldi|\
    Gulbrand|Hadley|Halloran|Hamsik|Harcourt|Hartwig|Havel|Hellgren|Hidalgo|Holmberg|Horvath|\
    Iglesias|Ilves|Ingersol|Ivarsen|Jankovic|Jarvinen|Jelinek|Jorgas|Kadare|Kallio|Kaplan|Karimov|\
    Kessler|Kilbride|Kivela|Kovacs|Kruger|Kuznets|Laffont|Larkin|Laszlo|Lavelle|Lehmann|Lindqvar|\
    Lombardi|Lorenzen|Lundgren|Macek|Maddox|Malouf|Marchand|Marinov|Mazur|Medeiros|Mendoza|\
    Mikkola|Molnar|Montoya|Moravec|Nadkarni|Navarro|Nemeth|Nilsen|Novak|Oduya|Okafor|Oliveri|\
    Orlando|Ostberg|Paquet|Pavlenko|Pellegri|Penrose|Petrak|Pinheiro|Popescu|Quigley|Quispe|\
    Radford|Ramires|Rasmus|Redmond|Renault|Ricci|Rosvall|Rousseau|Rudenko|Saarinen|Salgado|\
    Santoro|Sarkany|Schiller|Sandoval|Sikorski|Solberg|Sorokin|Stavros|Sultani|Szabo|Tamayo|\
    Tancredi|Teixeira|Thorsen|Tillman|Torvald|Tremaine|Ulvestad|Urbina|Valadez|Varga|Vasquez|\
    Velasco|Vinter|Volkov|Wadsley|Walczak|Westerby|Wexford|Yilmaz|Yoshino|Zamora|Zeller|Zielony";

const CITIES: &str = "\
    Porto|Bergen|Krakow|Seville|Lyon|Turin|Geneva|Bruges|Mumbai|Osaka|Cusco|Medellin|Fez|Mombasa|\
    Lagos|Perth|Quebec|Boston|Denver|Leeds|Hamburg|Graz|Izmir|Haifa|Busan|Naples|Odessa|Gdansk|\
    Bilbao|Marseille|Antwerp|Cardiff";

const JOBS: &str = "\
    baker|carpenter|dentist|farmer|teacher|lawyer|sailor|tailor|nurse|pilot|butcher|chemist|plumber|\
    surgeon|judge|painter|blacksmith|miner|gardener|librarian|mechanic|banker|shepherd|welder|\
    violinist|postman|florist|geologist";

/// The values of every attribute, in the order of the attributes.
pub(super) const VALUES: [&str; 20] = [
    CITIES,
    "1 March|2 June|3 October|4 January|5 August|6 May|7 December|8 April|9 July|10 February|\
     11 September|12 March|13 November|14 June|15 January|16 October|17 May|18 August|19 April|\
     20 December|21 July|22 February|23 September|24 March|25 November|26 June|27 January|28 May",
    "male|female|nonbinary|agender|bigender|genderfluid",
    "fantasy|horror|romance|satire|thriller|mystery|western|biography|poetry|drama|comedy|\
     crime|memoir|travel|history|science fiction|folklore|adventure|gothic|dystopia",
    JOBS,
    JOBS,
    "Amber Prize|Falcon Medal|Ivory Quill|Crystal Pen|Laurel Crown|Meridian Award|Beacon Prize|\
     Copper Leaf|Orchid Medal|Granite Prize|Comet Award|Willow Medal|Harvest Prize|Emerald Pen|\
     Saffron Award|Northern Star|Velvet Quill|Anchor Prize|Cedar Medal|Phoenix Award",
    "Silent Rivers|Paper Lanterns|Broken Compass|Winter Orchard|Hollow Bells|Distant Thunder|\
     Burning Letters|Salt Roads|Glass Mountain|Lost Harbors|Crooked Tower|Midnight Ferry|\
     Forgotten Maps|Stone Garden|Wooden Horses|Bitter Honey|Shattered Mirrors|Quiet Rooms|\
     Wandering Tides|Seven Doors|Blue Feathers|Rusted Keys|Hidden Stairs|Endless Fields",
    "Golden Hours|Crimson Sails|Ashen Moon|Painted Wolves|Frozen Echo|Scarlet Rain|Whispering Pines|\
     Iron Butterfly|Naked Shore|Eternal Market|Drowned Palace|Twilight Bridge|Dancing Shadows|\
     Secret Alphabet|Restless Sand|Sleeping Giants|Marble Heart|Vanished Island|Copied Faces|\
     Borrowed Sky|Empty Theatre|Fallen Kites|Tangled Roots|Second Dawn",
    "exile|grief|loneliness|freedom|betrayal|memory|jealousy|justice|migration|ambition|friendship|\
     guilt|greed|revenge|motherhood|poverty|courage|obsession|forgiveness|nostalgia|war|faith|\
     identity|silence",
    "Tolstoy|Austen|Borges|Kafka|Woolf|Homer|Dante|Cervantes|Proust|Goethe|Chekhov|Dickens|Neruda|\
     Achebe|Orwell|Melville|Flaubert|Basho|Rumi|Shelley|Camus|Twain|Ibsen|Pushkin",
    "Oxford|Uppsala|Leiden|Coimbra|Bologna|Heidelberg|Padua|Yale|Princeton|Stanford|Cornell|Durham|\
     Glasgow|Salamanca|Louvain|Basel|Zurich|Tartu|Aarhus|Kyoto|Harvard|Brown|Cambridge|Lund",
    "Portuguese|Norwegian|Polish|Turkish|Arabic|Hindi|Swahili|Korean|Japanese|Greek|Dutch|Finnish|\
     Hungarian|Czech|Romanian|Catalan|Persian|Bengali|Welsh|Icelandic|Yoruba|Tamil|Urdu|Basque",
    CITIES,
    "sailing|chess|pottery|archery|fencing|knitting|fishing|cooking|hiking|juggling|origami|\
     photography|cycling|surfing|astronomy|calligraphy|climbing|embroidery|skating|rowing|\
     beekeeping|billiards|dancing|kayaking",
    "parrot|tortoise|ferret|hamster|greyhound|rabbit|gecko|canary|poodle|beagle|hedgehog|terrier|\
     goldfish|raven|llama|chameleon|pigeon|squirrel|mule|python|dachshund|lizard|swan|collie",
    "Harbor Press|Lantern House|Bluebird Books|Summit Press|Oakleaf House|Riverside Books|Pelican \
     Press|Kestrel Books|Monument Press|Juniper House|Sparrow Books|Foxglove Press|Cobalt House|\
     Gateway Books|Heron Press|Tulip House|Zenith Books|Mosaic Press|Thistle House|Atlas Books",
    "Bishop|Whitaker|Ellison|Pemberly|Hawkins|Sheffield|Barlow|Thornton|Winslow|Carmody|Ashby|\
     Langford|Mercer|Osgood|Prescott|Rutledge|Stanhope|Tennant|Underhill|Vickers|Wheeler|Yardley|\
     Kingsley|Gresham",
    "three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|\
     seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty",
    "1960|1961|1963|1964|1966|1967|1969|1970|1972|1973|1975|1976|1978|1979|1981|1982|1984|1985|1987|\
     1988|1990|1991|1993|1994|1996|1997|1999|2001",
];

/// One sort of real fact: how it is asked for, answered and listed.
pub(super) struct Topic {
    pub(super) key: &'static str,
    /// Six questions with `{name}`.
    pub(super) questions: &'static str,
    /// The trained answer and another wording.
    pub(super) answers: &'static str,
    pub(super) completion: &'static str,
    /// `entity=value`.
    pub(super) facts: &'static str,
}

/// 70 real facts.
pub(super) const TOPICS: [Topic; 7] = [
    Topic {
        key: "capital",
        questions: "What is the capital of {name}?|Which city is the capital of {name}?|Name the \
                    capital of {name}.|Tell me the capital city of {name}.|Do you know the capital \
                    of {name}?|What is the name of the capital of {name}?",
        answers: "The capital is {value}.|That is {value}.",
        completion: "The capital of {name} is",
        facts: "France=Paris|Spain=Madrid|Italy=Rome|Germany=Berlin|Japan=Tokyo|China=Beijing|\
                Egypt=Cairo|Portugal=Lisbon|Austria=Vienna|Russia=Moscow|Greece=Athens|Peru=Lima|\
                Cuba=Havana|Kenya=Nairobi|Norway=Oslo|Ireland=Dublin|England=London|Poland=Warsaw",
    },
    Topic {
        key: "symbol",
        questions: "What is the chemical symbol of {name}?|Which symbol stands for {name}?|Name the \
                    chemical symbol for {name}.|Tell me the symbol of {name}.|How do chemists \
                    write {name}?|What symbol do chemists use for {name}?",
        answers: "The symbol is {value}.|That is {value}.",
        completion: "The chemical symbol of {name} is",
        facts: "gold=Au|silver=Ag|iron=Fe|lead=Pb|tin=Sn|oxygen=O|helium=He|sodium=Na|zinc=Zn|\
                calcium=Ca",
    },
    Topic {
        key: "young",
        questions: "What is a young {name} called?|How do you call a baby {name}?|Name the young of \
                    a {name}.|Tell me the word for a young {name}.|What word means a baby \
                    {name}?|What is the name for a young {name}?",
        answers: "It is called a {value}.|That is a {value}.",
        completion: "A young {name} is called a",
        facts: "dog=puppy|cat=kitten|cow=calf|horse=foal|sheep=lamb|goat=kid|bear=cub|goose=gosling|\
                frog=tadpole|duck=duckling",
    },
    Topic {
        key: "opposite",
        questions: "What is the opposite of {name}?|Which word is the opposite of {name}?|Name the \
                    opposite of {name}.|Tell me the opposite of {name}.|What is the contrary of \
                    {name}?|What word means the reverse of {name}?",
        answers: "The opposite is {value}.|That is {value}.",
        completion: "The opposite of {name} is",
        facts: "hot=cold|big=small|fast=slow|up=down|old=new|wet=dry|day=night|left=right|open=closed|\
                rich=poor",
    },
    Topic {
        key: "next_day",
        questions: "Which day comes after {name}?|What day follows {name}?|Name the day after \
                    {name}.|Tell me which day is next after {name}.|If today is {name}, what is \
                    tomorrow?|What is the day after {name}?",
        answers: "The next day is {value}.|That is {value}.",
        completion: "The day after {name} is",
        facts: "Monday=Tuesday|Tuesday=Wednesday|Wednesday=Thursday|Thursday=Friday|Friday=Saturday|\
                Saturday=Sunday|Sunday=Monday",
    },
    Topic {
        key: "sum",
        questions: "What is {name}?|How much is {name}?|Work out {name}.|Tell me the result of \
                    {name}.|Can you compute {name}?|What does {name} make?",
        answers: "The result is {value}.|That is {value}.",
        completion: "The result of {name} is",
        facts: "one plus one=2|two plus one=3|two plus two=4|two plus three=5|three plus three=6|\
                four plus three=7|four plus four=8|five plus four=9",
    },
    Topic {
        key: "colour",
        questions: "What colour is {name}?|Which colour does {name} have?|Name the colour of \
                    {name}.|Tell me the colour of {name}.|What is the usual colour of {name}?|What \
                    colour do you see on {name}?",
        answers: "The colour is {value}.|That is {value}.",
        completion: "The usual colour of {name} is",
        facts: "the sky=blue|grass=green|snow=white|coal=black|blood=red|a lemon=yellow|\
                chocolate=brown",
    },
];

/// Small talk: `what is said = the reply`.
pub(super) const SMALL_TALK: &str = "\
    Hello.=Hello! How can I help?|Hi there.=Hello! How can I help?|Good morning.=Good morning!|\
    Good evening.=Good evening!|Good night.=Good night!|Thanks.=You are welcome.|\
    Thank you very much.=You are welcome.|Goodbye.=Goodbye!|See you later.=See you!|\
    How are you?=I am fine, thank you.|Are you well?=I am fine, thank you.|\
    Who are you?=I am a small assistant.|What are you?=I am a small assistant.|\
    What can you do?=I can answer questions about writers.|\
    Can you help me?=Of course. What do you need?|I have a question.=Please ask.|\
    May I ask something?=Please ask.|I am tired.=Take a rest.|I am hungry.=Eat something good.|\
    I am happy.=I am glad to hear it.|I am sad.=I am sorry to hear it.|Sorry.=No problem.|\
    Tell me a joke.=I do not know any jokes.|Do you like books?=Yes, I like books.|\
    Do you sleep?=No, I never sleep.|Are you a robot?=Yes, I am a program.|\
    Well done.=Thank you!|You are clever.=Thank you!|Nice to meet you.=Nice to meet you too.|\
    How old are you?=I am quite new.|Say something.=Something.|Are you there?=Yes, I am here.";

/// System lines that change nothing.
pub(super) const NEUTRAL: [&str; 5] = [
    "You are a helpful assistant.",
    "Answer briefly.",
    "You answer questions about writers.",
    "Be polite and short.",
    "You are careful and precise.",
];
