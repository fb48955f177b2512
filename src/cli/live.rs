//! `check --live`: each credential's references are read and its endpoint asked for a token, and
//! each step says what it found: secret, DNS, TCP, TLS, answer, scopes.

use std::sync::Arc;
use std::time::SystemTime;

use super::args::Output;
use super::exit::Exit;
use super::runtime;
use super::say::outln;
use crate::config::Config;
use crate::oauth::ScopeSet;
use crate::proxy::plan::wanted;
use crate::secret::{Reference, SecretError};
use crate::sensitive::Sensitive;
use crate::token::Credential;
use crate::token::probe::{self, Probe, ProbeError};

/// One step of one credential's check.
struct Step {
    name: &'static str,
    ok: bool,
    text: String,
    hint: Option<String>,
}

impl Step {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, ok: true, text: text.into(), hint: None }
    }

    fn failed(name: &'static str, text: impl Into<String>, hint: Option<String>) -> Self {
        Self { name, ok: false, text: text.into(), hint }
    }
}

/// Asks each token endpoint for the tokens that the routes need.
pub fn check(config: &Config, output: Output) -> anyhow::Result<Exit> {
    let runtime = runtime()?;
    let mut ok = true;
    let mut report = Vec::new();
    for credential in &config.credentials {
        for scopes in scope_sets(config, credential) {
            let steps = runtime.block_on(steps(credential, &scopes));
            ok &= steps.iter().all(|step| step.ok);
            match output {
                Output::Text => print(credential, &scopes, &steps)?,
                Output::Json => report.push(json(credential, &scopes, &steps)),
            }
        }
    }
    if output == Output::Json {
        outln!("{}", serde_json::to_string_pretty(&report)?)?;
    }
    Ok(if ok { Exit::Done } else { Exit::Live })
}

/// The distinct scope sets that routes ask of a credential.
fn scope_sets(config: &Config, credential: &Arc<Credential>) -> Vec<ScopeSet> {
    let mut sets: Vec<ScopeSet> = Vec::new();
    for one in wanted(&config.proxy, &config.credentials) {
        if one.credential.name == credential.name && !sets.contains(&one.scopes) {
            sets.push(one.scopes);
        }
    }
    if !credential.dialect.send_scope {
        let all = sets.iter().fold(ScopeSet::default(), |all, set| all.union(set));
        return vec![all];
    }
    sets
}

async fn steps(credential: &Credential, scopes: &ScopeSet) -> Vec<Step> {
    let mut steps = Vec::new();
    let id = &credential.client_id;
    reference(&mut steps, "client_id", id, id.read_id().await);
    if let Some(secret) = &credential.client_secret {
        reference(&mut steps, "client_secret", secret, secret.read().await);
    }
    if steps.iter().any(|step| !step.ok) {
        return steps;
    }
    match probe::probe(credential, scopes).await {
        Ok(probe) => succeeded(&mut steps, &probe, scopes),
        Err(error) => failed(&mut steps, &error),
    }
    steps
}

fn reference(
    steps: &mut Vec<Step>,
    name: &'static str,
    reference: &Reference,
    found: Result<Sensitive, SecretError>,
) {
    match found {
        Ok(value) => {
            steps.push(Step::ok(name, format!("{} ({} bytes)", reference.describe(), value.len())));
        }
        Err(error) => steps.push(Step::failed(name, error.to_string(), None)),
    }
}

fn succeeded(steps: &mut Vec<Step>, probe: &Probe, scopes: &ScopeSet) {
    steps.push(Step::ok("reached", probe.connect.to_string()));
    let granted = match &probe.granted {
        Some(granted) => format!("granted: {}", granted.to_wire()),
        None => "the answer names no scope, so that what was asked for counts as granted".into(),
    };
    steps.push(Step::ok("token", format!("valid for {} s, {granted}", probe.life.as_secs())));
    if let Some(granted) = &probe.granted {
        let missing: Vec<_> =
            scopes.missing_from(granted).iter().map(|scope| scope.as_str().to_owned()).collect();
        if !missing.is_empty() {
            steps.push(Step::failed(
                "scopes",
                format!("not granted: {}", missing.join(" ")),
                Some("ask the API's owner to approve these scopes for your client".into()),
            ));
        }
    }
    if let Some(offset) = probe.clock_offset(SystemTime::now())
        && offset.as_secs() > 60
    {
        steps.push(Step::failed(
            "clock",
            format!("this machine's clock and the server's differ by {} s", offset.as_secs()),
            Some("set this machine's clock (NTP)".into()),
        ));
    }
}

fn failed(steps: &mut Vec<Step>, error: &ProbeError) {
    if let Some(report) = error.reached() {
        steps.push(Step::ok("reached", report.to_string()));
    }
    steps.push(Step::failed(error.step(), error.to_string(), error.hint()));
}

fn print(credential: &Credential, scopes: &ScopeSet, steps: &[Step]) -> std::io::Result<()> {
    outln!("{}  {}", credential.name, credential.endpoint.uri())?;
    if !scopes.is_empty() {
        outln!("  scopes {}", scopes.to_wire())?;
    }
    for step in steps {
        outln!("  {} {:14}{}", if step.ok { "√" } else { "×" }, step.name, step.text)?;
        if let Some(hint) = &step.hint {
            outln!("    {:14}{hint}", "")?;
        }
    }
    Ok(())
}

fn json(credential: &Credential, scopes: &ScopeSet, steps: &[Step]) -> serde_json::Value {
    let steps: Vec<_> = steps
        .iter()
        .map(|step| serde_json::json!({ "step": step.name, "ok": step.ok, "found": step.text, "hint": step.hint }))
        .collect();
    serde_json::json!({
        "credential": &*credential.name,
        "token_url": credential.endpoint.uri().to_string(),
        "scopes": scopes.to_wire(),
        "steps": steps,
    })
}
