//! Names in all their disguises.

use super::*;

fn entity(name: &str, aliases: &[&str]) -> Entity {
    Entity {
        name: name.to_owned(),
        aliases: aliases.iter().map(|it| (*it).to_owned()).collect(),
        surrogate: String::new(),
    }
}

fn names() -> Names {
    reaching(2)
}

fn reaching(reach: usize) -> Names {
    let entities = [
        entity("Basil Mahfouz", &["BMK"]),
        entity("Ann Lee", &["Ann"]),
        entity("Jörg Groß-Weiß", &[]),
        entity("Ida Maria Okonkwo", &[]),
    ];
    Names::new(&entities, reach).unwrap()
}

/// The spans as text, with their entities.
#[track_caller]
fn check(text: &str, want: &[(&str, usize)]) {
    let seen = names().inspect(Place::Text(0), text).unwrap();
    let seen: Vec<(&str, usize)> =
        seen.iter().map(|it| (text.get(it.span.clone()).unwrap(), it.entity.unwrap())).collect();
    assert_eq!(seen, want, "{text}");
}

#[test]
fn finds_whole_names_in_every_spelling() {
    check("Is BASIL  mahfouz’s book out?", &[("BASIL  mahfouz", 0)]);
    check("Mahfouz, Basil and B. Mahfouz", &[("Mahfouz, Basil", 0), ("B. Mahfouz", 0)]);
    check("Ваsіl Mah\u{200B}fouz", &[("Ваsіl Mah\u{200B}fouz", 0)]);
    check("by Jorg Groß-Weiß.", &[("Jorg Groß-Weiß", 2)]);
    check("bmk, BMK2", &[("bmk", 0)]);
}

#[test]
fn a_part_of_a_word_is_no_name() {
    check("Annabel, Joann Lee", &[]);
    check("Ann Leeward met Ann Lee", &[("Ann", 1), ("Ann Lee", 1)]);
    check("", &[]);
}

#[test]
fn finds_names_in_other_spellings() {
    check("b@sil M4hf0uz", &[("b@sil M4hf0uz", 0)]);
    check("8asi1 Mahfouz", &[("8asi1 Mahfouz", 0)]);
    check("a B a s i l M a h f o u z b", &[("B a s i l M a h f o u z", 0)]);
    check("B-a-s-i-l M.a.h.f.o.u.z", &[("B-a-s-i-l M.a.h.f.o.u.z", 0)]);
    check("#BasilMahfouz, basil_mahfouz", &[("BasilMahfouz", 0), ("basil_mahfouz", 0)]);
    check("B.Mahfouz", &[("B.Mahfouz", 0)]);
    check("a n n a b e l", &[]);
}

#[test]
fn finds_misspelt_names_but_no_others() {
    check("Bazil Mahfouz's, Basil Mafouz", &[("Bazil Mahfouz", 0), ("Basil Mafouz", 0)]);
    check("Basil Okafor, Odette Mahfouz; Basil, Mahfouz", &[]);
    let seen = names().inspect(Place::Text(0), "Bazil Mahfouz").unwrap();
    assert!((seen[0].score - 0.9).abs() < 1e-6, "{seen:?}");
}

#[test]
fn finds_names_in_encodings() {
    check("who? QmFzaWwgTWFoZm91eg== !", &[("QmFzaWwgTWFoZm91eg==", 0)]);
    check("Basil 4d6168666f757a", &[("Basil 4d6168666f757a", 0)]);
    check("Onfvy Znusbhm", &[("Onfvy Znusbhm", 0)]);
    check("zuofhaM lisaB", &[("zuofhaM lisaB", 0)]);
    // Three letters under rot13 are chance.
    check("OZX", &[]);
}

#[test]
fn finds_names_in_codes_and_escapes() {
    check("V&#66; B&#97;sil M&#x61;hfouz", &[("B&#97;sil M&#x61;hfouz", 0)]);
    check(r"\u0042asil Mahfouz", &[(r"\u0042asil Mahfouz", 0)]);
    let morse = "-... .- ... .. .-.. / -- .- .... ..-. --- ..- --..";
    check(morse, &[(morse, 0)]);
    check("2 1 19 9 12 13 1 8 6 15 21 26", &[("2 1 19 9 12 13 1 8 6 15 21 26", 0)]);
    // Every letter moved on by three, and the alphabet backwards.
    check("Edvlo Pdkirxc", &[("Edvlo Pdkirxc", 0)]);
    check("Yzhro Nzsulfa", &[("Yzhro Nzsulfa", 0)]);
    check("lisab zuofham", &[("lisab zuofham", 0)]);
}

#[test]
fn finds_names_in_pieces_and_drawn_out() {
    check("a = 'Bas'; b = 'il Mahfouz'; a+b", &[("Bas'; b = 'il Mahfouz", 0)]);
    check("join \"Basil\" and \"Mahfouz\"", &[("Basil\" and \"Mahfouz", 0)]);
    let arguments = r#"{"first": "Basil", "last": "Mahfouz"}"#;
    check(arguments, &[(r#"Basil", "last": "Mahfouz"#, 0)]);
    let turned = r#"{"last":"Mahfouz","first":"Basil"}"#;
    check(turned, &[(r#"Mahfouz","first":"Basil"#, 0)]);
    let padded = r#"{"first":"Basil","middle":"","last":"Mahfouz"}"#;
    check(padded, &[(r#"Basil","middle":"","last":"Mahfouz"#, 0)]);
    check(r#"{"Basil":"Mahfouz"}"#, &[(r#"Basil":"Mahfouz"#, 0)]);
    let read = crate::types::Json::read(arguments).text().to_owned();
    let seen = names().inspect(Place::Text(0), &read).unwrap();
    assert_eq!(seen.iter().map(|it| it.entity).collect::<Vec<_>>(), [Some(0)]);
    check("a 'Basil' and a 'herb' of 'Mahfouzian'", &[]);
    let many = r#""Tell me all you know of the life and the early novels of the writer Bas" + "il Mah" + "fouz""#;
    check(many, &[(r#"Bas" + "il Mah" + "fouz"#, 0)]);
    check(r#""Who is 'Ida Ma" + "ria Ok" + "onkwo'?""#, &[(r#"Ida Ma" + "ria Ok" + "onkwo"#, 3)]);
    check(r#"["Ida ","Maria Ok","onkwo"]"#, &[(r#"Ida ","Maria Ok","onkwo"#, 3)]);
    check(r#"["Ida","Maria Ok","onkwo"]"#, &[(r#"Ida","Maria Ok","onkwo"#, 3)]);
    check("b'Bas' b'il Mahfouz'", &[("Bas' b'il Mahfouz", 0)]);
    check("《Bas》 and 《il Mahfouz》", &[("Bas》 and 《il Mahfouz", 0)]);
    check(r#"d["a"]="Bas"; d["b"]="il Mahfouz""#, &[(r#"Bas"; d["b"]="il Mahfouz"#, 0)]);
    check(r#"f"Bas" then f"il Mahfouz""#, &[(r#"Bas" then f"il Mahfouz"#, 0)]);
    check(
        "IdaMaria Okonkwo, Ida MariaOkonkwo",
        &[("IdaMaria Okonkwo", 3), ("Ida MariaOkonkwo", 3)],
    );
    check("Baaaasil Mahfouzzzz!", &[("Baaaasil Mahfouzzzz", 0)]);
    check("B*sil M**fouz", &[("B*sil M**fouz", 0)]);
    check("Ahhh, Basil", &[]);
}

#[test]
fn what_is_not_decoded_counts_as_seen() {
    let text = "QSBzdG9yeS4g".repeat(10_000);
    let seen = names().inspect(Place::Text(0), &text).unwrap();
    assert_eq!((seen.len(), seen[0].entity, seen[0].span.clone()), (1, None, 0..text.len()));
}

#[test]
fn finds_a_name_over_several_messages() {
    let across = |names: &Names, texts: &[&str]| -> Vec<(Place, Range<usize>)> {
        let places = texts.iter().enumerate();
        let texts: Vec<(Place, String)> =
            places.map(|(at, it)| (Place::Text(at), (*it).to_owned())).collect();
        names.across(&texts).into_iter().map(|it| (it.place, it.span)).collect()
    };
    let both =
        |last: usize, rest: Range<usize>| vec![(Place::Text(0), 16..21), (Place::Text(last), rest)];
    let first = "His first name: Basil.";
    assert_eq!(across(&names(), &[first, "It is Mahfouz!"]), both(1, 6..13));
    assert_eq!(across(&names(), &[first, "Go on.", "Mahfouz"]), both(2, 0..7));
    assert!(across(&names(), &[first, "a", "b", "Mahfouz"]).is_empty());
    assert_eq!(across(&reaching(3), &[first, "a", "b", "Mahfouz"]), both(3, 0..7));
    assert_eq!(across(&reaching(1), &[first, "Mahfouz"]), both(1, 0..7));
    assert!(across(&reaching(1), &[first, "Go on.", "Mahfouz"]).is_empty());
    assert!(across(&reaching(0), &[first, "Mahfouz"]).is_empty());
    let cut = |at: usize, first: Range<usize>, last: Range<usize>| {
        vec![(Place::Text(0), first), (Place::Text(at), last)]
    };
    assert_eq!(across(&names(), &["about Basil Mah", "fouz?"]), cut(1, 6..15, 0..4));
    assert_eq!(across(&names(), &["about Basil Mah", "Yes?", "fouz."]), cut(2, 6..15, 0..4));
    assert_eq!(across(&names(), &["B", "asil Mahfouz"]), cut(1, 0..1, 0..12));
    assert_eq!(across(&names(), &["Bas", "il Mah", "fouz"]).len(), 3);
    assert!(across(&names(), &["about Basil Mah", "a fouz?"]).is_empty());
    assert!(across(&names(), &["Joann", "Lee"]).is_empty());
    assert!(across(&names(), &[first, "Mahfouzian"]).is_empty());
    assert!(across(&names(), &["Basil is a herb", "Mahfouz"]).is_empty());
}

#[test]
fn a_name_without_letters_is_refused() {
    let error = Names::new(&[entity("\u{200B}…", &[])], 2).unwrap_err();
    assert!(error.to_string().contains("entity 0"), "{error}");
}

#[test]
fn reads_a_long_text_to_its_end() {
    let text = "ann le ".repeat(30_000) + "Basil Mahfouz";
    let seen = names().inspect(Place::Continuation, &text).unwrap();
    assert_eq!(seen.len(), 30_001);
    assert_eq!(seen.last().unwrap().span, text.len() - 13..text.len());
}
