//! AWS Secrets Manager: whoever we may be, and a rotation.

use std::path::Path;

use bearer_proxy::sandbox::Bank;

use super::fake::Fake;
use super::{bank, config, rotate, token};
use crate::support::{Proxy, client, issued};

const REGION: &str = "eu-central-1";

/// AWS with the bank's login in one secret.
fn aws(bank: &Bank) -> Option<Fake> {
    Fake::start("aws.py", &[&login(bank, bank.auth.client_secret())])
}

fn login(bank: &Bank, secret: &str) -> String {
    serde_json::json!({ "client_id": bank.auth.client_id(), "client_secret": secret }).to_string()
}

fn from_aws(bank: &Bank, cache: &str) -> String {
    let reference = |key: &str| {
        format!(
            "aws_secrets_manager = {{ id = \"prod/bank\", key = {key:?}, region = {REGION:?}, \
             cache = {cache:?} }}"
        )
    };
    config(bank, "", &reference("client_id"), &reference("client_secret"))
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn whoever_may_read_the_secret_does() {
    let bank = bank().await;
    let Some(aws) = aws(&bank) else { return };
    let config = from_aws(&bank, "5m");
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    let (id, key, issuer) = (aws.told("id"), aws.told("key"), aws.told("issuer"));
    let container = format!("{issuer}/container");
    let identity = write(here, "identity", "a-federated-token");
    let authorization = write(here, "authorization", "a-container-token");
    let keys = format!("aws_access_key_id = {id}\naws_secret_access_key = {key}\n");
    let shared = write(here, "credentials", &format!("[default]\n{keys}"));
    let session = "[default]\nsso_session = corp\nsso_account_id = 123456789012\n\
                   sso_role_name = reader\n[sso-session corp]\nsso_region = eu-central-1\n\
                   sso_start_url = https://corp.awsapps.com/start\n";
    let sso = write(here, "sso", session);
    // The name is the SHA-1 of the session's.
    let signed_in = r#"{"accessToken":"an-sso-token","expiresAt":"2100-01-01T00:00:00Z","region":"eu-central-1"}"#;
    let cache = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
    write(here, cache, signed_in);
    let home = here.to_str().unwrap();

    let service = [("AWS_ENDPOINT_URL_SECRETS_MANAGER", aws.told("aws"))];
    let check = async |who: &str, environment: &[(&str, &str)], expected: Result<(), &str>| {
        let ended = token(&config, &[&service, environment].concat()).await;
        match expected {
            Ok(()) => assert_eq!(ended.code, 0, "{who}: {}", ended.said),
            Err(why) => {
                assert_eq!(ended.code, 1, "{who}: {}", ended.said);
                assert!(ended.said.contains(why), "{who}: {}", ended.said);
                assert!(!ended.said.contains(key), "{who}: {}", ended.said);
            }
        }
    };
    let access = |id, key| [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", key)];
    check("environment", &access(id, key), Ok(())).await;
    let wrong = format!("{key}x");
    check("a wrong key", &access(id, &wrong), Err("was refused: 403; may this")).await;
    check("a stranger", &access("AKIAIOSFODNN7EXAMPLE", key), Err("was refused: 403")).await;
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", &*identity), ("AWS_ROLE_ARN", aws.told("role"))];
    let sts = [("AWS_ENDPOINT_URL_STS", issuer)];
    check("web identity", &[web, [sts[0], ("A", "")]].concat(), Ok(())).await;
    let forged = [("AWS_WEB_IDENTITY_TOKEN_FILE", &*authorization), web[1], sts[0]];
    check("a forged identity", &forged, Err("no credentials of AWS")).await;
    check("instance", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", issuer)], Ok(())).await;
    let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*container);
    let stated = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a-container-token");
    check("task of ECS", &[uri, stated], Ok(())).await;
    let filed = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &*authorization);
    check("pod of EKS", &[uri, filed], Ok(())).await;
    check("profile", &[("AWS_SHARED_CREDENTIALS_FILE", &shared)], Ok(())).await;
    let portal = [("AWS_CONFIG_FILE", &*sso), ("AWS_ENDPOINT_URL_SSO", issuer), ("HOME", home)];
    check("single sign-on", &portal, Ok(())).await;
    let stage = config.replace("region =", "version_stage = \"AWSPENDING\", region =");
    let stage = token(&stage, &[access(id, key)[0], access(id, key)[1], service[0]]).await;
    assert!(stage.said.contains("does not exist"), "{}", stage.said);
    let nobody = [("AWS_EC2_METADATA_DISABLED", "true")];
    check("nobody", &nobody, Err("no credentials of AWS were found")).await;
}

#[tokio::test]
async fn a_secret_of_aws_is_rotated_and_outlives_an_outage() {
    let bank = bank().await;
    let Some(mut aws) = aws(&bank) else { return };
    let (id, key) = (aws.told("id").to_owned(), aws.told("key").to_owned());
    let endpoint = aws.told("aws").to_owned();
    let environment = [
        ("AWS_ACCESS_KEY_ID", &*id),
        ("AWS_SECRET_ACCESS_KEY", &*key),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &*endpoint),
    ];
    // What is kept for an hour is read again at once when it is refused.
    let proxy = Proxy::start_in(&from_aws(&bank, "1h"), &environment).await;
    proxy.wait_ready().await;
    rotate(&bank, &proxy, |secret| aws.put(&login(&bank, secret))).await;
    drop(proxy);

    let proxy = Proxy::start_in(&from_aws(&bank, "1ms"), &environment).await;
    proxy.wait_ready().await;
    drop(aws);
    proxy.wait_log(|line| line.contains("read last stays in use").then_some(())).await;
    issued(&bank, 1).await;
    assert_eq!(client(proxy.addr).await.get("/v1/balances/42").await.status, 200);
}
