//! What was found in a model, kept as long as the model is.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

type Found = Arc<dyn Any + Send + Sync>;

/// Results by what was done to find them.
#[derive(Default)]
pub struct Remembered(Mutex<HashMap<String, Found>>);

impl Remembered {
    /// The result of this name, found now where it is not there yet. The name has to say everything that
    /// decides the result.
    ///
    /// # Errors
    ///
    /// That of `find`, which is not remembered.
    pub fn or_find<T, E>(&self, name: String, find: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        T: Clone + Send + Sync + 'static,
    {
        let known = self.map(|it| it.get(&name).cloned());
        if let Some(known) = known.as_deref().and_then(|it| it.downcast_ref::<T>()) {
            return Ok(known.clone());
        }
        let found = find()?;
        self.map(|it| it.insert(name, Arc::new(found.clone())));
        Ok(found)
    }

    fn map<T>(&self, ask: impl FnOnce(&mut HashMap<String, Found>) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.map(|it| it.keys().cloned().collect());
        f.debug_tuple("Remembered").field(&names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_once_and_no_errors_stay() {
        let remembered = Remembered::default();
        let ask = |name: &str, result: Result<u8, &'static str>| {
            remembered.or_find(name.to_owned(), || result)
        };
        assert_eq!(ask("a", Err("no")), Err("no"));
        assert_eq!(ask("a", Ok(1)), Ok(1));
        assert_eq!(ask("a", Ok(2)), Ok(1));
        assert_eq!(ask("b", Ok(3)), Ok(3));
        // Of another type under the same name there is nothing yet.
        assert_eq!(remembered.or_find("a".to_owned(), || Ok::<_, ()>("x")), Ok("x"));
    }
}
