//! Paths in JSON and TOML, for `#[serde(with = "striate_files::path")]`: a text as long as that is
//! exact, and otherwise a table with a text to look at and the bytes that count.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(PathBuf),
    Bytes { text: String, bytes: Vec<u8> },
}

/// A path as JSON, where there is no field to say it of.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Exact<'a>(#[serde(serialize_with = "serialize")] pub &'a Path);

/// Writes a path.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    let form = match path.to_str() {
        Some(_) => Form::Text(path.into()),
        None => Form::Bytes { text: path.to_string_lossy().into_owned(), bytes: path.as_os_str().as_bytes().to_vec() },
    };
    form.serialize(serializer)
}

/// Reads a path.
///
/// # Errors
///
/// What is neither a text nor such a table.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(match Form::deserialize(deserializer)? {
        Form::Text(path) => path,
        Form::Bytes { bytes, .. } => OsString::from_vec(bytes).into(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Of(#[serde(with = "super")] PathBuf);

    #[test]
    fn every_path_comes_back() {
        for (bytes, json) in [
            (&b"runs/caf\xc3\xa9"[..], "\"runs/caf\u{e9}\""),
            (&b"caf\xe9"[..], "{\"text\":\"caf\u{fffd}\",\"bytes\":[99,97,102,233]}"),
        ] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let text = serde_json::to_string(&Of(path.clone())).unwrap();
            assert_eq!(text, json);
            assert_eq!(serde_json::from_str::<Of>(&text).unwrap().0, path);
        }
    }
}
