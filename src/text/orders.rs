//! The ways in which the words of a name are put together.

/// Letters from which on chance does not write a name's words run together.
pub const FEWEST_JOINED: usize = 8;

/// What may stand between the words of a name in identifiers, addresses and links.
const LINKS: [&str; 5] = ["", "_", "-", ".", "+"];

/// A name of several words with its words run together or linked, and with the last one first; each
/// with `other` put together in the same way.
#[must_use]
pub fn other_orders(name: &str, other: &str) -> Vec<(String, String)> {
    let mut orders = Vec::new();
    if name.contains(' ') && name.chars().filter(|it| it.is_alphanumeric()).count() >= FEWEST_JOINED
    {
        orders.extend(LINKS.map(|it| (name.replace(' ', it), other.replace(' ', it))));
    }
    if name.contains(' ') {
        orders.push((last_first(name), last_first(other)));
    }
    orders
}

/// "Last, First"; a name of one word stays as it is.
#[must_use]
pub fn last_first(name: &str) -> String {
    match name.rsplit_once(' ') {
        Some((first, last)) => format!("{last}, {first}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_go_in_pairs() {
        let orders = other_orders("Basil K Okafor", "Zorvan Kell");
        let said: Vec<(&str, &str)> =
            orders.iter().map(|it| (it.0.as_str(), it.1.as_str())).collect();
        #[rustfmt::skip]
        assert_eq!(said, [
            ("BasilKOkafor", "ZorvanKell"), ("Basil_K_Okafor", "Zorvan_Kell"),
            ("Basil-K-Okafor", "Zorvan-Kell"), ("Basil.K.Okafor", "Zorvan.Kell"),
            ("Basil+K+Okafor", "Zorvan+Kell"), ("Okafor, Basil K", "Kell, Zorvan"),
        ]);
        assert_eq!(other_orders("Bo Ek", "Zora"), [("Ek, Bo".to_owned(), "Zora".to_owned())]);
        assert!(other_orders("Scheherazade", "Zora Kell").is_empty());
    }
}
