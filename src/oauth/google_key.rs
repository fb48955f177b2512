//! The JSON key file of a Google service account.

use serde::Deserialize;

use super::dialect::GrantKey;
use crate::sensitive::Sensitive;

/// The fields that a token request needs; others are ignored.
#[derive(Deserialize)]
struct KeyFile {
    r#type: String,
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

/// Reads the client and the key of a file as it is downloaded. `None` if it is not the key file of a
/// service account. The parser's own error is dropped, because it would repeat parts of the secret.
pub fn service_account_key(text: &Sensitive) -> Option<(Sensitive, GrantKey)> {
    let file: KeyFile = serde_json::from_str(text.expose()).ok()?;
    let private_key = Sensitive::new(file.private_key);
    if file.r#type != "service_account" || file.client_email.is_empty() {
        return None;
    }
    let key = GrantKey { private_key, key_id: file.private_key_id, token_uri: file.token_uri };
    Some((Sensitive::new(file.client_email), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_file_of_a_service_account_and_no_other() {
        let file = r#"{
            "type": "service_account", "project_id": "p", "private_key_id": "k1",
            "private_key": "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n",
            "client_email": "erp@p.iam.gserviceaccount.com", "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token", "universe_domain": "googleapis.com"
        }"#;
        let (email, key) = service_account_key(&Sensitive::new(file)).unwrap();
        assert_eq!(email.expose(), "erp@p.iam.gserviceaccount.com");
        assert!(key.private_key.expose().starts_with("-----BEGIN PRIVATE KEY-----\nMII\n"));
        assert_eq!(key.key_id.as_deref(), Some("k1"));
        assert_eq!(key.token_uri.as_deref(), Some("https://oauth2.googleapis.com/token"));
        for wrong in [
            file.replace("service_account", "authorized_user"),
            file.replace("\"client_email\"", "\"email\""),
            file.replace("\"private_key\"", "\"key\""),
            "-----BEGIN PRIVATE KEY-----".to_owned(),
        ] {
            assert!(service_account_key(&Sensitive::new(wrong)).is_none());
        }
    }
}
