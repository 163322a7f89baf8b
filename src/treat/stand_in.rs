//! What stands for a name that was seen, written as the name is.

use super::{Case, Found};
use crate::text::{alike, begins_alike, in_capitals, last_first, normalise, other_orders};
use crate::types::{Entity, Place, QUOTE};
use crate::window::{Kind, Replacement};

/// Longest writing of a name that is given back where the model repeats what stands for it.
const LONGEST_ECHO: usize = 128;
/// Names of a request that are looked at for their writing; further ones get the plain surrogate.
const MOST_WRITINGS: usize = 256;

/// What stands for a name, where that is not the plain surrogate.
#[derive(Debug)]
pub(super) struct StandIn {
    /// The surrogate in the asker's writing.
    pub(super) text: String,
    /// The asker's own, where it is short enough to be put back.
    written: Option<String>,
    /// The name was misspelt, or shortened: who does not write it rightly elsewhere does not read it so.
    pub(super) misspelt: bool,
}

impl StandIn {
    /// Turns the surrogate in the asker's writing back into what the asker wrote.
    pub(super) fn restore(&self) -> Option<Replacement> {
        let (pattern, with) = (self.text.clone(), self.written.clone()?);
        Some(Replacement { pattern, with, kind: Kind::Restore })
    }

    /// Turns the plain surrogate into what the asker wrote, in any order of its words, and the name itself,
    /// should the model come upon it.
    pub(super) fn restore_plain(&self, entity: &Entity) -> Vec<Replacement> {
        let Some(written) = &self.written else { return Vec::new() };
        let turn = |pattern, with| Replacement { pattern, with, kind: Kind::Restore };
        let of = |name: &str| {
            let mut all = vec![turn(name.to_owned(), written.clone())];
            for (pattern, turned) in other_orders(name, written) {
                // What was written with the last name first is not turned once more.
                let with = if written.contains(',') { written.clone() } else { turned };
                all.push(turn(pattern, with));
            }
            all
        };
        // A name of one word is many other people's.
        let names = entity.spellings().filter(|it| it.contains(' '));
        names.chain([entity.surrogate.as_str()]).flat_map(of).collect()
    }
}

/// What stands for each of the names that [`names`](super::names) found: what a model that never met the
/// name would have read. `None` is the plain surrogate, also where somebody would still be named.
pub(super) fn stand_ins(case: &Case<'_>, found: &[Found]) -> Vec<Option<StandIn>> {
    let texts = case.request.texts();
    let mut left = MOST_WRITINGS;
    let of = |(place, span, entity): &Found| {
        let text = match place {
            Place::Text(index) => texts.get(*index).copied(),
            Place::Continuation => case.continuation.as_deref(),
        };
        let written = text.and_then(|it| it.get(span.clone()))?;
        let entity = &case.policy.entities[*entity];
        if written == entity.name {
            return None;
        }
        let stand_in = |text, written, misspelt| Some(StandIn { text, written, misspelt });
        if let Some(text) = ordered(entity, written) {
            return stand_in(text, None, false);
        }
        if written.contains(QUOTE) {
            // Over several strings of JSON the surrogate is shared between them.
            return None;
        }
        left = left.checked_sub(1)?;
        let hides = |it: &StandIn| !(case.names_somebody)(&it.text);
        if let Some(text) = part(&entity.name, &entity.surrogate, written) {
            // A torn word may be one of the language's own, which must not be turned into what was written.
            let torn = !text.contains(' ') && entity.surrogate.split(' ').all(|it| it != text);
            let own = (!torn).then(|| written.to_owned());
            // As many words as the name has: its last letters are missing, or in another text.
            let shortened = !torn && words(written) == words(&entity.name);
            return stand_in(text, own, shortened).filter(hides);
        }
        let orders = |it| other_orders(it, &entity.surrogate);
        let plain = entity.spellings().map(|it| (it.to_owned(), entity.surrogate.clone()));
        let names: Vec<(String, String)> =
            plain.chain(entity.spellings().flat_map(orders)).collect();
        let own = (written.len() <= LONGEST_ECHO).then(|| written.to_owned());
        if let Some(text) = alike(written, &names) {
            return stand_in(text, own, false).filter(hides);
        }
        let folded = normalise(written).text;
        let right = names.iter().find(|it| normalise(&it.0).text == folded);
        let is_near = |name: &str| begins_alike(written, name) || initialled(written, name);
        let near = || names.iter().find(|it| is_near(&it.0));
        let (name, other) = right.or_else(near)?;
        let text = in_capitals(written, name, other).filter(|it| !(case.names_somebody)(it));
        match right {
            // In other capitals the surrogate is turned back like any other.
            Some(_) => stand_in(text?, None, false),
            None => stand_in(text.unwrap_or_else(|| entity.surrogate.clone()), Some(own?), true),
        }
    };
    found.iter().map(of).collect()
}

/// Whether a name was written with initials that are not in it.
fn initialled(written: &str, name: &str) -> bool {
    let [written, name] = [written, name].map(|it| {
        let words = normalise(it).text;
        let words = words.split(|it: char| !it.is_alphanumeric());
        words.filter(|it| it.chars().nth(1).is_some()).map(str::to_owned).collect::<Vec<String>>()
    });
    written.len() > 1 && written == name
}

fn words(text: &str) -> usize {
    normalise(text).text.split(' ').count()
}

/// The surrogate with its words in the order and with the links of a plain name.
fn ordered(entity: &Entity, written: &str) -> Option<String> {
    let written = normalise(written).text;
    for (name, surrogate) in other_orders(&entity.name, &entity.surrogate) {
        if normalise(&name).text == written {
            return Some(surrogate);
        }
    }
    let name = normalise(&entity.name).text;
    match (name.split_once(' '), name.rsplit_once(' ')) {
        // Over several strings of JSON.
        (Some((first, _)), Some((_, last)))
            if first != last && written.starts_with(last) && written.ends_with(first) =>
        {
            Some(last_first(&entity.surrogate))
        }
        _ => None,
    }
}

/// The part of the surrogate that stands for the beginning or the end of a name, whose other part is in
/// another text: cut at the same word and in it after as many letters, or before the last one.
fn part(name: &str, surrogate: &str, written: &str) -> Option<String> {
    let (name, written) = (normalise(name).text, normalise(written).text);
    let begins = name.starts_with(&written);
    if written.is_empty() || written == name || !(begins || name.ends_with(&written)) {
        return None;
    }
    let cut = if begins { written.len() } else { name.len() - written.len() };
    let (before, after) = (name.get(..cut)?, name.get(cut..)?);
    let word = before.matches(' ').count();
    let letters = before.rsplit(' ').next()?.chars().count();
    let mut words = surrogate.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let own = words.get(word)?.clone();
    let most = own.chars().count().saturating_sub(usize::from(!after.starts_with(' ')));
    let letters = if after.starts_with(' ') { most } else { letters.min(most) };
    let at = own.char_indices().nth(letters).map_or(own.len(), |it| it.0);
    let (left, right) = own.split_at(at);
    if begins {
        words.truncate(word);
        words.push(left.to_owned());
    } else {
        words.drain(..=word);
        words.insert(0, right.to_owned());
    }
    Some(words.join(" ").trim().to_owned()).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both parts together are the surrogate.
    #[test]
    fn a_name_in_two_parts_has_a_surrogate_in_two() {
        let of = |written: &str| part("Viggo Blaszko", "Ulrika Sarto", written);
        for (first, second, want) in [
            ("Viggo", "Blaszko", ["Ulrika", "Sarto"]),
            ("viggo  BLAS", "zko", ["Ulrika Sart", "o"]),
            ("Viggo Bl", "aszko", ["Ulrika Sa", "rto"]),
            ("Vig", "go Blaszko", ["Ulr", "ika Sarto"]),
        ] {
            assert_eq!([of(first), of(second)], want.map(|it| Some(it.to_owned())), "{first}");
        }
        for whole in ["Viggo Blaszko", "Blasko", ""] {
            assert_eq!(of(whole), None);
        }
        assert_eq!(part("Viggo Blaszko", "Ulrika  Sarto", "Viggo B"), Some("Ulrika".to_owned()));
        assert_eq!(part("Ana Maria Voss", "Ulrika Sarto", "Voss"), None);
        assert_eq!(part("Åsa Öberg", "Ulrika Sarto", "Åsa Ö"), Some("Ulrika S".to_owned()));
    }
}
