//! `man`: the manual, one page with verbs, keys, signals, files, environment and exit codes.

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::args::Args;
use super::exit::Exit;
use super::output::out;
use crate::config::schema::{ValueKind, keys};

const DESCRIPTION: &str = "An authenticating outbound reverse proxy. Apps speak plain HTTP to it on localhost. It \
    obtains OAuth 2.0 tokens with the client credentials grant (RFC 6749), renews them in the background, attaches them \
    with the scopes that the matched route needs, and forwards to the upstream over TLS. What no route claims gets 404 \
    and no token.";

const SIGNALS: [(&str, &str); 4] = [
    (
        "SIGTERM",
        "Leave in order: not ready at once, accept requests for shutdown.lame_duck, then finish requests in progress \
         within shutdown.drain_timeout.",
    ),
    ("SIGINT", "The same without the lame duck."),
    ("a second SIGTERM or SIGINT", "End at once, with exit code 130."),
    (
        "SIGHUP",
        "Reload the configuration. With a controlling terminal: leave, since the terminal was closed.",
    ),
];

const FILES: [(&str, &str); 4] = [
    ("./bearer-proxy.toml", "The configuration, if --config names no other file."),
    ("$XDG_CONFIG_HOME/bearer-proxy/bearer-proxy.toml", "Read if the first is not there."),
    ("/etc/bearer-proxy/bearer-proxy.toml", "Read if neither of the two is there."),
    (
        "/run/secrets/…",
        "Where configurations usually look for secrets. The file of a secret must not be readable by all users.",
    ),
];

const ENVIRONMENT: [(&str, &str); 7] = [
    ("BEARER_PROXY_CONFIG", "Configuration file, as --config."),
    ("NO_COLOR", "If not empty, diagnostics and the log have no colours."),
    ("HTTPS_PROXY, NO_PROXY", "Read only if egress.proxy is \"env\"."),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Roots of trust in place of the system's, if tls.roots is \"system\".",
    ),
    ("CREDENTIALS_DIRECTORY", "Where systemd puts the credentials that .systemd references name."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "Set by systemd: readiness, reloads and the watchdog."),
    (
        "BEARER_PROXY_URL, BEARER_PROXY_URL_NAME, BEARER_PROXY_ADMIN_URL",
        "Set for the command of \"run -- CMD\": the proxy, the upstream NAME with its mount, the admin listener.",
    ),
];

const EXITS: [(Exit, &str); 9] = [
    (Exit::Done, "Done."),
    (Exit::Failed, "Failed while running."),
    (Exit::Usage, "The command line is wrong."),
    (Exit::Live, "check --live found a failure."),
    (Exit::Refused, "explain: the request would be refused."),
    (
        Exit::Unreachable,
        "No running instance was reached, or it was not ready in time (wait, status, healthcheck).",
    ),
    (Exit::Address, "An address is in use or not allowed."),
    (Exit::Config, "The configuration is missing or wrong."),
    (Exit::Interrupted, "A second interrupt."),
];

/// Prints the manual, as roff.
pub fn man() -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    let command = Args::command();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    body(command).to_writer(&mut page)?;
    out!("{}", String::from_utf8_lossy(&page))?;
    Ok(Exit::Done)
}

/// All sections after the name.
fn body(mut command: Command) -> Roff {
    // It fills in what each verb takes over from the command itself.
    command.build();
    let mut page = Roff::new();
    heading(&mut page, "SYNOPSIS");
    page.text([bold("bearer-proxy"), roman(" [--config FILE] VERB …")]);
    heading(&mut page, "DESCRIPTION");
    page.text([roman(DESCRIPTION)]);
    heading(&mut page, "OPTIONS");
    command.get_arguments().for_each(|argument| describe_argument(&mut page, argument));
    heading(&mut page, "VERBS");
    command.get_subcommands().for_each(|verb| describe(&mut page, "bearer-proxy", verb));
    heading(&mut page, "CONFIGURATION");
    page.text([roman(
        "TOML. NAME stands for a name that you choose. \"bearer-proxy schema KEY\" prints the same for one key.",
    )]);
    for key in keys() {
        let kind = match key.kind {
            ValueKind::Written => "",
            ValueKind::Default => "Default. ",
            ValueKind::Example => "Example. ",
        };
        let text = format!("{kind}{}", key.about);
        item(&mut page, &key.path, &[roman(key.setting), Inline::LineBreak, roman(text)]);
    }
    section(&mut page, "SIGNALS", &SIGNALS);
    section(&mut page, "FILES", &FILES);
    section(&mut page, "ENVIRONMENT", &ENVIRONMENT);
    heading(&mut page, "EXIT STATUS");
    for (exit, meaning) in EXITS {
        item(&mut page, &exit.code().to_string(), &[roman(meaning)]);
    }
    item(&mut page, "CODE", &[roman("\"run -- CMD\" ends with the exit code of CMD.")]);
    page
}

fn heading(page: &mut Roff, title: &str) {
    page.control("SH", [title]);
}

fn section(page: &mut Roff, title: &str, items: &[(&str, &str)]) {
    heading(page, title);
    for (term, text) in items {
        item(page, term, &[roman(*text)]);
    }
}

/// A term, and below it, indented, what it means.
fn item(page: &mut Roff, term: &str, text: &[Inline]) {
    page.control("TP", []);
    page.text([bold(term)]);
    page.text(text);
}

/// A verb with its flags, and the verbs below it.
fn describe(page: &mut Roff, above: &str, verb: &Command) {
    if verb.get_name() == "help" {
        return;
    }
    let name = format!("{above} {}", verb.get_name());
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    page.control("SS", [usage.split(" <COMMAND>").next().unwrap_or(usage)]);
    page.text([roman(verb.get_about().map(ToString::to_string).unwrap_or_default())]);
    let own = |argument: &&Arg| !["help", "config"].contains(&argument.get_id().as_str());
    verb.get_arguments().filter(own).for_each(|argument| describe_argument(page, argument));
    verb.get_subcommands().for_each(|below| describe(page, &name, below));
}

fn describe_argument(page: &mut Roff, argument: &Arg) {
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    item(page, &format!("{short}{argument}"), &[roman(help(argument))]);
}

/// The meaning of an argument, with its default.
fn help(argument: &Arg) -> String {
    let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    match defaults.join(", ") {
        none if none.is_empty() || !argument.get_action().takes_values() => text,
        default => format!("{text} (default: {default})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_complete() {
        let page = body(Args::command()).render().replace("\\-", "-");
        for verb in Args::command().get_subcommands() {
            assert!(page.contains(&format!("bearer-proxy {}", verb.get_name())), "{verb}");
        }
        for key in keys() {
            assert!(page.contains(&key.path), "{}", key.path);
        }
        for title in ["SIGNALS", "FILES", "ENVIRONMENT", "EXIT STATUS"] {
            assert!(page.contains(title), "{title}");
        }
        assert!(page.contains("--fresh") && page.contains("78"), "{page}");
    }
}
