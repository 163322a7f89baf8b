//! What tells in a stop text: a reply that ends at it says what the model was about to write.

/// From so many letters on a stop text that shares them with a name stands for it; shorter ones are part of
/// too many other words.
const TELLING: usize = 3;

/// The letters and digits of a text, in lower case.
pub(super) struct Letters(String);

impl Letters {
    pub(super) fn of(text: &str) -> Self {
        Self(text.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect())
    }

    /// Whether there are enough of them to stand for a name that has them.
    pub(super) fn tell(&self) -> bool {
        self.0.chars().count() >= TELLING
    }

    pub(super) fn contain(&self, others: &Self) -> bool {
        self.0.contains(&others.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stand_for_a_name_from_three_on() {
        let name = Letters::of("Viggo Blaszko");
        for (stop, tells, within) in [
            ("GGO, B", true, true),
            ("go", false, true),
            ("g-o.", false, true),
            ("Vigo", true, false),
            ("\n", false, true),
        ] {
            let stop = Letters::of(stop);
            assert_eq!((stop.tell(), name.contain(&stop)), (tells, within));
        }
    }
}
