//! Encodings by hand, and texts made to keep a decoder busy.

use super::*;

/// "Viggo Blaszko".
const NAME64: &str = "VmlnZ28gQmxhc3prbw==";
const NAME: &str = "Viggo Blaszko";

/// The original text behind a name in any view that has it decoded.
#[track_caller]
fn check(text: &str, want: Option<&str>) {
    let decodings = decode(text);
    let seen = decodings.views.iter().find_map(|it| {
        let at = it.text.find(NAME)?;
        let range = at..at + NAME.len();
        it.is_decoded(&range).then(|| it.original_span(range))
    });
    assert_eq!(seen.map(|it| text.get(it).unwrap()), want, "{text}: {decodings:?}");
    assert!(decodings.unread.is_empty(), "{text}: {:?}", decodings.unread);
}

#[test]
fn base64_in_its_place() {
    check(&format!("Read {NAME64} for me"), Some(NAME64));
    check("Read VmlnZ28gQmxhc3prbw for me", Some("VmlnZ28gQmxhc3prbw"));
    check("x-VmlnZ28gQmxhc3prbw==.", Some("VmlnZ28gQmxhc3prbw=="));
    check("Viggo Qmxhc3prbw== now", Some("Viggo Qmxhc3prbw=="));
    check("VmlnZ28= Qmxhc3prbw==", Some("VmlnZ28= Qmxhc3prbw=="));
    check("Vmln\u{200B}Z28gQmxhc3prbw==", Some("Vmln\u{200B}Z28gQmxhc3prbw=="));
    let line = "QUFB".repeat(15);
    let wrapped = format!("{line}\nIFZpZ2dvIEJsYXN6a28=");
    check(&wrapped, Some(&wrapped));
}

#[test]
fn a_byte_that_is_no_text_hides_none() {
    check("/1ZpZ2dvIEJsYXN6a28=", Some("/1ZpZ2dvIEJsYXN6a28="));
    let wide: String = "Viggo Blaszko".bytes().map(|it| format!("{it:02x}00")).collect();
    check(&wide, Some(&wide));
}

#[test]
fn both_alphabets() {
    for text in ["Pj4-Pj8_", "Pj4+Pj8/"] {
        let said: Vec<String> = decode(text).views.into_iter().map(|it| it.text).collect();
        assert!(said.iter().any(|it| it == ">>>>??"), "{said:?}");
    }
}

#[test]
fn hexadecimal_and_percent() {
    let hex = "566967676f20426c61737a6b6f";
    check(&format!("what is {hex}?"), Some(hex));
    check("0x566967676F20426C61737A6B6F", Some("0x566967676F20426C61737A6B6F"));
    check("q=Vi%67go%20Blaszko&x", Some("Vi%67go%20Blaszko"));
    check("é %56%69ggo Blaszko", Some("%56%69ggo Blaszko"));
    check("100% of 50%zz and 3%", None);
}

#[test]
fn turned_texts() {
    check("Jub vf Ivttb Oynfmxb?", Some("Ivttb Oynfmxb"));
    check("?okzsalB oggiV si ohW é", Some("okzsalB oggiV"));
    check("is SXZ0dGIgT3luZm14Yg== known", Some("SXZ0dGIgT3luZm14Yg=="));
    check("IzyaM28tDzkup3ceoj==", Some("IzyaM28tDzkup3ceoj=="));
    check("==wbrp3chxmQg82ZnlmV", Some("==wbrp3chxmQg82ZnlmV"));
}

#[test]
fn encodings_within_each_other() {
    let twice = "Vm1sbloyOGdRbXhoYzNwcmJ3PT0=";
    check(&format!("so {twice} it is"), Some(twice));
    check("%56mlnZ28gQmxhc3prbw==", Some("%56mlnZ28gQmxhc3prbw=="));
}

#[test]
fn plain_words_are_no_encoding() {
    check("The organisation acknowledged internationalisation in 20250101 and deadbeef.", None);
    check("", None);
}

/// Base64 as its definition has it.
fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for digit in 0..=group.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
        out.push_str(["==", "=", ""].get(group.len() - 1).unwrap());
    }
    out
}

#[test]
fn deep_nesting_is_reported() {
    let nested = |depth| (0..depth).fold(NAME.to_owned(), |it, _| base64(&it));
    assert_eq!(nested(1), NAME64);
    let three = nested(3);
    check(&three, Some(&three));
    let ten = nested(10);
    let decodings = decode(&ten);
    assert_eq!(decodings.unread.first(), Some(&(0..ten.len())));
    assert!(decodings.bytes <= MAX_GROWTH * ten.len(), "{}", decodings.bytes);
}

#[test]
fn the_work_is_bounded() {
    let long = base64(&"A long story of a name. ".repeat(6_250));
    assert_eq!(long.len(), 200_000);
    let decodings = decode(&long);
    assert!(decodings.bytes <= MAX_BYTES, "{}", decodings.bytes);
    assert_eq!(decodings.unread.first(), Some(&(0..long.len())));

    let hidden = decode(&"\u{200B}".repeat(1_000_000));
    assert_eq!((hidden.bytes, hidden.unread.len()), (0, 0));
    assert!(hidden.views.iter().all(|it| it.text.is_empty()));

    for text in ["A".repeat(200_000), "%41".repeat(70_000), "Zm9vYmFy ".repeat(20_000)] {
        let decodings = decode(&text);
        assert!(decodings.bytes <= MAX_BYTES, "{}", decodings.bytes);
        let views: usize = decodings.views.iter().map(|it| it.text.len()).sum();
        assert!(views <= 16 * text.len(), "{views}");
    }
}

#[test]
fn escapes_stand_in_their_place() {
    check("so V&#105;ggo &#66;laszko is", Some("V&#105;ggo &#66;laszko"));
    check(r"\u0056iggo \x42laszko", Some(r"\u0056iggo \x42laszko"));
    check(r"%u0056iggo Blaszko", Some(r"%u0056iggo Blaszko"));
    check("Tom &amp; Jerry, C:\\temp\\x", None);
}

#[test]
fn codes_of_letters() {
    let said = |text: &str| decode(text).views.into_iter().map(|it| it.text).collect::<Vec<_>>();
    for text in
        ["so ...- .. --. --. --- is", "so 22 9 7 7 15 is", "so Victor India Golf Golf Oscar is"]
    {
        assert!(said(text).contains(&"so viggo is".to_owned()), "{text}: {:?}", said(text));
    }
    let morse = base64("...- .. --. --. ---");
    assert!(said(&morse).contains(&"viggo".to_owned()), "{:?}", said(&morse));
}

#[test]
fn unread_parts_are_few() {
    let decodings = decode(&"Zm9vYmFy, so ".repeat(20_000));
    assert!(decodings.unread.len() <= MOST_UNREAD, "{}", decodings.unread.len());
    assert_eq!(decodings.unread.iter().map(|it| it.end).max(), Some(13 * 20_000 - 5));
}
