//! `RECOVER.md`: how to restore from this repository with stock programs alone.

use super::documents::Encryption;

const PAGE: &str = include_str!("recover.md");

/// The page for a repository that is encrypted so.
pub fn render(encryption: Encryption) -> String {
    let (unseal, pipe) = match encryption {
        Encryption::Age => {
            ("age -d -i \"$IDENTITY\" \"$1\" | zstd -dc", "age -d -i \"$IDENTITY\" | zstd -dc")
        }
        Encryption::None => ("zstd -dc < \"$1\"", "zstd -dc"),
    };
    PAGE.replace("@UNSEAL@", unseal).replace("@UNSEAL_PIPE@", pipe)
}
