//! `check --live`: tests everything that the configuration names.
//!
//! For each credential, the store of shared tokens, each upstream, client and listener, step by step:
//! references, files, DNS, egress proxy, TCP, TLS, clock, tokens, scopes. A running instance is asked first:
//! what it knows of its tokens and upstreams costs no token call. No request is sent to an upstream: that it
//! speaks TLS with us is enough.

mod instance;
mod network;
mod references;
mod result;
#[cfg(feature = "share")]
mod share;
mod tokens;

use std::sync::Arc;

use serde_json::{Value, json};

use super::args::{Check, OutputFormat};
use super::exit::Exit;
use super::output::{errln, outln};
use super::running_instance::RunningInstance;
use super::setup::runtime;
use crate::config::Config;
use crate::diagnostics::Report;
use crate::listen::settings::ServerTls;
use crate::net::tls::ClientCertificate;
use crate::oauth::{ClientAuth, ScopeSet, TokenEndpoint};
use crate::proxy::policy::plan::token_specs;
use crate::proxy::policy::settings::{
    ClientCredential, ClientSettings, HeaderText, ListenerSettings, UpstreamSettings,
};
use crate::token::credential::TokenSource;
use crate::token::{Credential, effective_specs, probe};
use network::DAYS_TO_RENEW;
use result::{CheckGroup, CheckResult};

/// Checks everything; the outcome is printed, part by part.
pub fn check(config: &Config, notes: &Report, flags: &Check) -> anyhow::Result<Exit> {
    let asked = (!flags.fresh).then(|| RunningInstance::of(config));
    let (running, not_asked) = match asked {
        Some(Ok(running)) => (Some(running), None),
        Some(Err(not_asked)) => (None, Some(not_asked)),
        None => (None, None),
    };
    if flags.fresh {
        errln!(
            "note: --fresh asks for new tokens, which may cost quota, or end those of a running \
             instance where the server allows one at a time"
        );
    }
    let runtime = runtime()?;
    let mut parts = Vec::new();
    let mut told = |part: CheckGroup| -> std::io::Result<()> {
        if flags.output == OutputFormat::Text {
            part.print()?;
        }
        parts.push(part);
        Ok(())
    };
    if let Some(running) = &running {
        told(instance::group(running, &config.path))?;
    }
    match &not_asked {
        Some(silent) if silent.may_run => told(instance::silent(silent))?,
        Some(absent) => errln!("note: no running instance was asked: {}", absent.why),
        None => {}
    }
    let may_end_a_live_one = not_asked.is_some_and(|not_asked| not_asked.may_run);
    for credential in &config.credentials {
        told(runtime.block_on(check_credential(
            config,
            credential,
            running.as_ref(),
            flags.fresh,
            may_end_a_live_one,
        )))?;
    }
    #[cfg(feature = "share")]
    if let Some(part) = runtime.block_on(share::check_share(config, scope_sets)) {
        told(part)?;
    }
    for upstream in &config.proxy.upstreams {
        told(runtime.block_on(check_upstream(upstream, running.as_ref())))?;
    }
    for client in &config.proxy.clients {
        if let Some(part) = runtime.block_on(check_client(client)) {
            told(part)?;
        }
    }
    for listener in &config.proxy.listeners {
        if let Some(part) = check_listener(listener) {
            told(part)?;
        }
    }
    let failures: usize = parts.iter().map(CheckGroup::failures).sum();
    match flags.output {
        OutputFormat::Json => outln!("{:#}", to_json(notes, &parts))?,
        OutputFormat::Text if failures == 0 => match parts.iter().map(CheckGroup::warnings).sum() {
            0_usize => outln!("\neverything answers")?,
            1 => outln!("\nno step failed, and 1 has a warning (‼)")?,
            warnings => outln!("\nno step failed, and {warnings} have warnings (‼)")?,
        },
        OutputFormat::Text => {
            outln!("\n{failures} of these steps failed (×)")?;
            parts.iter().try_for_each(CheckGroup::print_failures)?;
        }
    }
    Ok(if failures == 0 { Exit::Done } else { Exit::Live })
}

/// The outcome of `check -o json`, and beside it what was found.
fn to_json(notes: &Report, parts: &[CheckGroup]) -> Value {
    let mut all = notes.to_json();
    all["ok"] = json!(parts.iter().all(|part| part.failures() == 0));
    all["checks"] = parts.iter().map(CheckGroup::to_json).collect();
    all["failures"] = parts.iter().flat_map(CheckGroup::failures_json).collect();
    all
}

async fn check_credential(
    config: &Config,
    credential: &Arc<Credential>,
    running: Option<&RunningInstance>,
    fresh: bool,
    may_end_a_live_one: bool,
) -> CheckGroup {
    let mut steps = Vec::new();
    match &credential.source {
        TokenSource::Static(token) => steps.push(references::secret("token", token).await),
        TokenSource::Endpoint(_) | TokenSource::Issuer(_) => {
            steps.push(references::id("client_id", &credential.client_id).await);
        }
    }
    for (name, reference) in &credential.secret_headers {
        steps.push(references::secret(&format!("request.headers.{name}"), reference).await);
    }
    match (&credential.client_secret, credential.auth) {
        (Some(key), ClientAuth::PrivateKeyJwt(_)) => {
            steps.push(references::private_key("client_secret", key).await);
        }
        (Some(file), ClientAuth::ClientAssertion) => {
            steps.push(references::secret("client_assertion", file).await);
        }
        (Some(secret), _) => steps.push(references::secret("client_secret", secret).await),
        (None, _) => {}
    }
    if let Some(key) = credential.dpop_key() {
        steps.push(references::private_key("dpop.key", key).await);
    }
    if let Some(key) = &credential.grant_key {
        steps.push(references::private_key("grant_assertion.key", key).await);
    }
    for (name, reference) in &credential.grant_parameters {
        steps.push(references::secret(name.as_str(), reference).await);
    }
    if let Some(file) = &credential.certificate {
        steps.push(references::assertion_certificate(file).await);
    }
    references::egress(&mut steps, credential.egress.as_ref()).await;
    let readable = !steps.iter().any(CheckResult::has_failed);
    let presentable = match credential.source {
        TokenSource::Static(_) => false,
        _ => references::presented_certificate(&mut steps, credential).await,
    };
    if presentable && let Some(endpoint) = token_endpoint(&mut steps, credential).await {
        network::connect(&mut steps, probe::connector(credential, &endpoint).await).await;
    }
    let may_call = readable && !steps.iter().any(CheckResult::has_failed);
    // A token of a server that keeps one: a request would revoke that of all replicas.
    let shared = credential.policy.share && credential.policy.one_live_token;
    if may_call && shared && !fresh && running.is_none() {
        let found = "not asked for: replicas share it, and a request would revoke theirs; see the store below";
        steps.push(CheckResult::ok("token", found).hint("--fresh asks for a new one all the same"));
    }
    let may_call = may_call && (fresh || !shared);
    if may_call && may_end_a_live_one && !matches!(credential.source, TokenSource::Static(_)) {
        let found = "not asked for: the instance does not say whether it holds one, which a new one may end";
        steps.push(
            CheckResult::ok("token", found)
                .warning()
                .hint("--fresh asks for a new one all the same"),
        );
    }
    let may_call = may_call && !may_end_a_live_one;
    let sets = scope_sets(config, credential);
    tokens::tokens(&mut steps, credential, &sets, running, may_call).await;
    let url = Some(credential.source.to_string());
    CheckGroup { kind: "credential", name: credential.name.to_string(), url, steps }
}

/// The token endpoint, which the metadata of an issuer may name; `None` after a failed step.
async fn token_endpoint(
    steps: &mut Vec<CheckResult>,
    credential: &Credential,
) -> Option<TokenEndpoint> {
    let Some(issuer) = credential.issuer() else { return credential.endpoint().cloned() };
    match probe::metadata(credential, issuer).await {
        Ok(found) => {
            let (endpoint, method) = (&found.token, found.auth.name());
            let about = format!("token endpoint {endpoint}, client_auth {method}");
            steps.push(CheckResult::ok("issuer", about));
            Some(found.token)
        }
        Err(error) => {
            let step = CheckResult::failed("issuer", error.to_string());
            let hint = error.hint();
            steps.push(match hint {
                Some(hint) => step.hint(hint),
                None => step,
            });
            None
        }
    }
}

async fn check_upstream(
    upstream: &UpstreamSettings,
    running: Option<&RunningInstance>,
) -> CheckGroup {
    let settings = &upstream.connection;
    let mut steps = Vec::new();
    for (name, text) in &upstream.set_headers {
        if let HeaderText::Secret(reference) = text {
            steps.push(references::secret(&format!("set_headers.{name}"), reference).await);
        }
    }
    references::egress(&mut steps, settings.egress.as_ref()).await;
    if references::client_certificate(&mut steps, &settings.tls) {
        network::connect(&mut steps, settings.connector(&Default::default())).await;
    }
    if let Some(running) = running
        && let Some(known) = running.upstream(&settings.name, &settings.origin.to_string())
    {
        instance::upstream(&mut steps, known, &running.status["now"]);
        instance::routes(&mut steps, &running.status, &settings.name);
    }
    let url = Some(format!("{}{}", settings.origin, upstream.base_path));
    CheckGroup { kind: "upstream", name: settings.name.to_string(), url, steps }
}

/// A client that proves itself by a key has one to be read.
async fn check_client(client: &ClientSettings) -> Option<CheckGroup> {
    let ClientCredential::LocalKey { value, .. } = &client.credential else { return None };
    let steps = vec![references::secret("local_key", value).await];
    Some(CheckGroup { kind: "client", name: client.name.to_string(), url: None, steps })
}

/// A listener that speaks TLS has a certificate to be read.
fn check_listener(listener: &ListenerSettings) -> Option<CheckGroup> {
    let ServerTls { certificate_file, key_file, .. } = listener.tls.clone()?;
    let files = ClientCertificate::Pem { certificate_file, key_file };
    let steps = vec![references::certificate("certificate", &files, DAYS_TO_RENEW)];
    Some(CheckGroup { kind: "listener", name: listener.listen.to_string(), url: None, steps })
}

/// The distinct scope sets with which tokens of a credential are asked.
fn scope_sets(config: &Config, credential: &Arc<Credential>) -> Vec<ScopeSet> {
    let mut sets: Vec<ScopeSet> = Vec::new();
    for one in effective_specs(token_specs(&config.proxy, &config.credentials)) {
        if one.credential.name == credential.name && !sets.contains(&one.scopes) {
            sets.push(one.scopes);
        }
    }
    sets
}
