//! `muster config-reference`: every setting of a master, made of the flags' own definitions.

use clap::CommandFactory;

use crate::cli::Arguments;
use crate::config::{BUS_VARIABLE, DATABASE_VARIABLE, FILE};
use crate::exit::Exit;

pub fn print() -> Exit {
    print!("{}", text());
    Exit::Ok
}

fn text() -> String {
    let mut text = format!(
        "# Settings of `muster up` and `muster serve`\n\n\
         Later wins: default, file (`{FILE}`, or `--config FILE`), environment, flag.\n\n\
         | in the file | environment | flag | meaning |\n| --- | --- | --- | --- |\n"
    );
    let mut command = Arguments::command();
    command.build();
    let serve = command.find_subcommand("serve");
    for argument in serve.into_iter().flat_map(clap::Command::get_arguments) {
        let (Some(variable), Some(flag)) = (argument.get_env(), argument.get_long()) else { continue };
        let in_file = match flag {
            "config" | "data-dir" | "context" | "output" => "-".to_owned(),
            name => format!("`{}`", name.replace('-', "_")),
        };
        // A context is another master's, output a matter of other commands.
        if matches!(flag, "context" | "output") {
            continue;
        }
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let variable = variable.to_string_lossy();
        text.push_str(&format!("| {in_file} | `{variable}` | `--{flag}` | {help} |\n"));
    }
    text.push_str(&format!(
        "| `database_url` | `{DATABASE_VARIABLE}` | - | PostgreSQL for all services, as in \
         postgres://user@host/database [default: one SQLite file a service in the data directory] |\n\
         | `nats_url` | `{BUS_VARIABLE}` | - | NATS, by which replicas wake each other, as in nats://host:4222; \
         wants PostgreSQL [default: none; there is one replica] |\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn every_setting_in_the_reference_is_understood_in_the_file_and_every_one_in_the_file_is_in_the_reference()
     {
        let text = text();
        let named: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        // serde names the fields it expects when it meets another.
        let error = toml::from_str::<Settings>("no_such_setting = 1").unwrap_err().to_string();
        for name in &named {
            assert!(error.contains(&format!("`{name}`")), "{name} is not in the file: {error}");
        }
        let expected = error.split("expected one of").nth(1).unwrap().matches('`').count() / 2;
        assert_eq!(named.len(), expected, "{error}");
    }
}
