//! `token`: show one token and what it grants; its value only when asked for.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::args::Token;
use super::exit::Exit;
use super::output::{errln, out, outln};
use super::running_instance::RunningInstance;
use super::setup::{load, runtime};
use crate::config::Config;
use crate::oauth::ScopeSet;
use crate::proxy::policy::plan::token_specs;
use crate::token::probe::{self, Probe};
use crate::token::{Credential, effective_specs};

/// Shows the token of a running instance, or obtains one.
pub fn token(path: Option<&Path>, flags: &Token) -> anyhow::Result<Exit> {
    let config = load(path)?;
    let (credential, scopes) = match choose(&config, flags) {
        Ok(chosen) => chosen,
        Err(message) => {
            errln!("error: {message}");
            return Ok(Exit::Usage);
        }
    };
    let asked = (!flags.fresh && !flags.reveal).then(|| RunningInstance::of(&config));
    let running = match asked.transpose() {
        Ok(running) => running,
        Err(silent) if silent.may_run => {
            errln!(
                "error: {}\n  a new token could end the one that an instance holds; --fresh asks for one all the same",
                silent.why
            );
            return Ok(Exit::Failed);
        }
        Err(_) => None,
    };
    let held = running.as_ref().and_then(|running| {
        Some(held(
            &credential,
            &scopes,
            &running.address,
            running.usable_token(&credential, &scopes)?,
        ))
    });
    if let Some(text) = held {
        out!("{text}")?;
        return Ok(Exit::Done);
    }
    if let Some(endpoint) = credential.endpoint() {
        errln!(
            "note: this asks {endpoint} for a new token, which may cost quota, or end that of a \
             running instance where the server allows one at a time"
        );
    }
    match runtime()?.block_on(probe::probe(&credential, &scopes)) {
        Ok(probe) if flags.reveal => {
            outln!("{}", probe.token.expose())?;
            Ok(Exit::Done)
        }
        Ok(probe) => {
            out!("{}", described(&credential, &scopes, &probe))?;
            Ok(Exit::Done)
        }
        Err(error) => {
            errln!("error: {error}");
            if let Some(hint) = error.hint() {
                errln!("  {hint}");
            }
            Ok(Exit::Failed)
        }
    }
}

fn choose(config: &Config, flags: &Token) -> Result<(Arc<Credential>, ScopeSet), String> {
    let find = |name: &str| {
        config.credentials.iter().find(|credential| &*credential.name == name).cloned().ok_or_else(
            || {
                let known: Vec<_> = config.credentials.iter().map(|known| &*known.name).collect();
                format!("no credential is called `{name}`; known: {}", known.join(", "))
            },
        )
    };
    if let Some(route) = &flags.route {
        let (upstream, name) = route.split_once('.').ok_or("a route is written UPSTREAM.ROUTE")?;
        for found in &config.proxy.upstreams {
            let route = found.routes.iter().find(|route| &*route.name == name);
            if let Some(route) = route.filter(|_| &*found.connection.name == upstream) {
                let credential = route.credential.as_ref().unwrap_or(&found.credential);
                let credential = find(credential)?;
                let scopes = settled(config, &credential, &route.scopes);
                return Ok((credential, scopes));
            }
        }
        let routes = config.proxy.upstreams.iter().flat_map(|upstream| {
            let name = &upstream.connection.name;
            upstream.routes.iter().map(move |route| format!("{name}.{}", route.name))
        });
        let known: Vec<_> = routes.collect();
        return Err(format!("there is no route `{route}`; known: {}", known.join(", ")));
    }
    let scopes = ScopeSet::parse(&flags.scopes).map_err(|error| error.to_string())?;
    Ok((find(flags.credential.as_deref().unwrap_or_default())?, scopes))
}

/// The scopes of the token that a route uses: with `tokens = "union"` those of other routes too.
fn settled(config: &Config, credential: &Credential, scopes: &ScopeSet) -> ScopeSet {
    let tokens = effective_specs(token_specs(&config.proxy, &config.credentials)).into_iter();
    tokens
        .filter(|one| one.credential.name == credential.name)
        .map(|one| one.scopes)
        .filter(|all| scopes.missing_from(all).is_empty())
        .min_by_key(ScopeSet::len)
        .unwrap_or_else(|| scopes.clone())
}

/// The facts that a running instance shows of its token.
fn held(credential: &Credential, scopes: &ScopeSet, address: &str, token: &Value) -> String {
    let fact = |name: &str| token[name].as_str().unwrap_or("(not known)").to_owned();
    format!(
        "credential  {}\nasked for   {}\nheld by     the instance at {address}\n\
         expires     {}\nrenewal     {}\n\
         value       (never leaves the instance; --fresh asks for a new token)\n",
        credential.name,
        scopes.to_wire(),
        fact("expires"),
        fact("refresh_due"),
    )
}

fn described(credential: &Credential, scopes: &ScopeSet, probe: &Probe) -> String {
    let life = probe.life.map(|life| format!("valid for   {} s\n", life.as_secs()));
    let granted = probe.granted.as_ref().map_or_else(|| "(not stated)".into(), ScopeSet::to_wire);
    format!(
        "credential  {}\nasked for   {}\ngranted     {granted}\n{}\
         length      {} bytes\nvalue       (hidden; --reveal prints it)\n",
        credential.name,
        scopes.to_wire(),
        life.unwrap_or_default(),
        probe.token.len(),
    )
}
