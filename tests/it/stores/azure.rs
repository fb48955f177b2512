//! Azure Key Vault: whoever we may be, and a rotation.

use std::os::unix::fs::PermissionsExt as _;

use super::fake::Fake;
use super::{bank, config, rotate, token};
use crate::support::Proxy;
use crate::support::tls::Authority;

/// A vault with this secret in it, behind a certificate of `ca`.
fn vault(ca: &Authority, secret: &str) -> Option<Fake> {
    let identity = ca.issue(&["localhost"], |_| {});
    let file = |name: &str, text: &str| {
        std::fs::write(ca.file(name), text).unwrap();
        ca.file(name).display().to_string()
    };
    let (pem, key) = (file("vault.pem", &identity.pem), file("vault.key", &identity.key));
    let trusted = ca.file("ca.pem").display().to_string();
    let vault = Fake::start("vault.py", &[&pem, &key, secret, &trusted])?;
    assert_eq!(vault.about["accepted"], true, "Microsoft's own client reads it");
    Some(vault)
}

fn head(ca: &Authority) -> String {
    format!("tls.extra_ca_file = \"{}\"", ca.file("ca.pem").display())
}

fn from_vault(vault: &Fake, name: &str, more: &str) -> String {
    format!("azure_key_vault = {{ vault = \"{}\", name = {name:?}{more} }}", vault.told("vault"))
}

#[tokio::test]
async fn whoever_may_read_the_secret_does() {
    let (bank, ca) = (bank().await, Authority::new("Azure Test CA"));
    let Some(vault) = vault(&ca, bank.auth.client_secret()) else { return };
    let id = format!("exec = [\"/bin/echo\", \"{}\"]", bank.auth.client_id());
    let files = tempfile::tempdir().unwrap();
    let federated = files.path().join("federated");
    std::fs::write(&federated, vault.told("federated")).unwrap();
    let az = files.path().join("az");
    let answer = r#"{"accessToken":"%","expires_on":4102444800,"expiresOn":"2100-01-01 00:00:00.000000","tokenType":"Bearer"}"#;
    let answer = answer.replace('%', vault.told("az"));
    std::fs::write(&az, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = format!("{}:/usr/bin:/bin", files.path().display());

    let check = async |more: &str, name: &str, who: &[(&str, &str)], expected: Result<(), &str>| {
        let config = config(&bank, &head(&ca), &id, &from_vault(&vault, name, more));
        let ended = token(&config, who).await;
        match expected {
            Ok(()) => assert_eq!(ended.code, 0, "{who:?}: {}", ended.said),
            Err(why) => {
                assert_eq!(ended.code, 1, "{who:?}: {}", ended.said);
                assert!(ended.said.contains(why), "{who:?}: {}", ended.said);
                assert!(!ended.said.contains("wrong"), "{who:?}: {}", ended.said);
            }
        }
    };
    let secret = "bank-secret";
    let app = [
        ("AZURE_AUTHORITY_HOST", vault.told("vault")),
        ("AZURE_TENANT_ID", vault.told("tenant")),
        ("AZURE_CLIENT_ID", vault.told("client")),
    ];
    let app = |what, value| [&app[..], &[(what, value)]].concat();
    let client = app("AZURE_CLIENT_SECRET", vault.told("secret"));
    check("", secret, &client, Ok(())).await;
    check(", version = \"1\", identity = \"client_secret\"", secret, &client, Ok(())).await;
    check(", version = \"7\"", secret, &client, Err("does not exist")).await;
    check("", "forbidden", &client, Err("was refused: Forbidden")).await;
    let wrong = app("AZURE_CLIENT_SECRET", "wrong");
    check("", secret, &wrong, Err("none was accepted")).await;
    let workload = app("AZURE_FEDERATED_TOKEN_FILE", federated.to_str().unwrap());
    check("", secret, &workload, Ok(())).await;
    check(", identity = \"workload\"", secret, &workload, Ok(())).await;
    check(", identity = \"workload\"", secret, &client, Err("no identity was found")).await;
    let endpoint = format!("{}/msi/token", vault.told("plain"));
    let managed = [("IDENTITY_ENDPOINT", &*endpoint), ("IDENTITY_HEADER", vault.told("managed"))];
    check("", secret, &managed, Ok(())).await;
    check(", identity = \"managed\"", secret, &managed, Ok(())).await;
    check(", identity = \"cli\"", secret, &[("PATH", &path)], Ok(())).await;
    check(", identity = \"cli\"", secret, &[], Err("run `az login`")).await;
}

#[tokio::test]
async fn a_secret_of_a_vault_is_rotated() {
    let (bank, ca) = (bank().await, Authority::new("Azure Test CA"));
    let Some(mut vault) = vault(&ca, bank.auth.client_secret()) else { return };
    let id = format!("exec = [\"/bin/echo\", \"{}\"]", bank.auth.client_id());
    let reference = from_vault(&vault, "bank-secret", ", cache = \"1h\"");
    let environment = [
        ("AZURE_AUTHORITY_HOST", vault.told("vault")),
        ("AZURE_TENANT_ID", vault.told("tenant")),
        ("AZURE_CLIENT_ID", vault.told("client")),
        ("AZURE_CLIENT_SECRET", vault.told("secret")),
    ];
    let proxy = Proxy::start_in(&config(&bank, &head(&ca), &id, &reference), &environment).await;
    proxy.wait_ready().await;
    rotate(&bank, &proxy, |secret| vault.put(secret)).await;
}
