//! Keys and tokens: read from files, compared in a time that says nothing about them.
use crate::ServeError;
use std::fmt::{Debug, Formatter};
use std::path::Path;
use subtle::ConstantTimeEq;

/// The fewest characters of a secret, so that nobody tries them all.
const SHORTEST: usize = 16;
/// The most bytes of a file with secrets.
const LONGEST_FILE: u64 = 1 << 20;

/// A key or token. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct Secret(String);

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A secret from a file that has nothing else in it, but for blanks around it.
    ///
    /// # Errors
    ///
    /// A file that can't be read, and a secret that is shorter than 16 characters or has others than visible ones of ASCII.
    pub fn read(path: &Path) -> Result<Self, ServeError> {
        let text = read(path)?;
        Self::new(text.trim()).ok_or_else(|| refused(path, unfit("it holds")))
    }

    /// A secret; none if it is shorter than 16 characters, or has others than visible ones of ASCII.
    pub fn new(secret: &str) -> Option<Self> {
        let fits = secret.len() >= SHORTEST && secret.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(secret.to_owned()))
    }

    /// Whether this is the secret. The time that this takes depends on lengths alone.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }
}

/// The keys of those who may ask, each with a name that stands in the log.
#[derive(Debug, Clone)]
pub struct Keys(Vec<(String, Secret)>);

impl Keys {
    /// Keys from a file of lines `NAME KEY`. Empty lines and those that start with `#` are left out.
    ///
    /// # Errors
    ///
    /// A file that can't be read or has no key; a line of another form, a key that is shorter than 16 characters, and two keys of one
    /// name. The error has the line's number, and never the key.
    pub fn read(path: &Path) -> Result<Self, ServeError> {
        let text = read(path)?;
        let mut keys: Vec<(String, Secret)> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |reason: &str| refused(path, format!("line {number}: {reason}"));
            let Some((name, key)) = line.split_once(char::is_whitespace) else {
                return Err(at("write NAME KEY, with a blank between them"));
            };
            let key = Secret::new(key.trim()).ok_or_else(|| at(&unfit("the line has")))?;
            if keys.iter().any(|(other, _)| other == name) {
                return Err(at("a line above has a key of this name: give it another one"));
            }
            keys.push((name.to_owned(), key));
        }
        match keys.is_empty() {
            true => Err(refused(path, "has no key: write a line NAME KEY".to_owned())),
            false => Ok(Self(keys)),
        }
    }

    /// The name of the one whose key this is. All keys are compared, so that the time tells nothing.
    pub(crate) fn name_of(&self, presented: &[u8]) -> Option<&str> {
        self.0.iter().fold(None, |found, (name, key)| if key.is(presented) { Some(name.as_str()) } else { found })
    }
}

fn unfit(what: &str) -> String {
    format!("{what} no secret of {SHORTEST} visible ASCII characters or more: make one with `openssl rand -hex 32`")
}

fn refused(path: &Path, reason: String) -> ServeError {
    ServeError::File { path: path.into(), reason: format!("can't be used: {reason}") }
}

/// The text of a small file.
fn read(path: &Path) -> Result<String, ServeError> {
    let cannot = |reason: String| ServeError::File { path: path.into(), reason: format!("cannot be read: {reason}") };
    let about = std::fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
    if !about.is_file() || about.len() > LONGEST_FILE {
        return Err(cannot("it is no file of at most 1 MB".to_owned()));
    }
    std::fs::read_to_string(path).map_err(|error| cannot(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";

    fn keys(text: &str) -> Result<Keys, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, text).unwrap();
        Keys::read(&path).map_err(|error| error.to_string().split_once("keys ").unwrap().1.to_owned())
    }

    #[test]
    fn a_key_is_found_by_all_of_it() {
        let keys = keys(&format!("# who may ask\n\nann {KEY}\r\nbob\t{KEY}x\n")).unwrap();
        assert_eq!(keys.name_of(KEY.as_bytes()), Some("ann"));
        assert_eq!(keys.name_of(format!("{KEY}x").as_bytes()), Some("bob"));
        for wrong in ["", "0123456789abcdeF", "0123456789abcde", "ann"] {
            assert_eq!(keys.name_of(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn files_that_name_no_keys_are_refused_and_no_secret_is_told() {
        let advice = "make one with `openssl rand -hex 32`";
        let cases = [
            ("# nobody\n", "can't be used: has no key: write a line NAME KEY".to_owned()),
            (KEY, "can't be used: line 1: write NAME KEY, with a blank between them".to_owned()),
            (
                "\nann short\n",
                format!("can't be used: line 2: the line has no secret of 16 visible ASCII characters or more: {advice}"),
            ),
            (
                "ann 0123456789abcdef\nann 0123456789abcdeg",
                "can't be used: line 2: a line above has a key of this name: give it another one".to_owned(),
            ),
        ];
        for (text, error) in cases {
            assert_eq!(keys(text).unwrap_err(), error);
        }
        assert!(!format!("{:?}", keys(&format!("ann {KEY}")).unwrap()).contains(KEY));
        let missing = Secret::read(Path::new("/nowhere/token")).unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere/token cannot be read: "), "{missing}");
    }
}
