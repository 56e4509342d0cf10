//! `spear task create`: the body from a file or from flags, sent or only shown.

use clap::Args;
use http::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};

use super::{
    TASK, TASKS,
    flags::{Running, pair},
    next_step,
    spec::{self, Executable, Spec},
};
use crate::{
    cli::{
        client::Client,
        execution::EXECUTION,
        file,
        input::{Input, in_base64},
        output,
        run::module,
        show::Form,
    },
    stopped::Stopped,
};

/// The flags.
#[derive(Args, Clone, Debug)]
pub(super) struct Create {
    /// Name for people
    #[arg(value_name = "NAME", required_unless_present = "file")]
    name: Option<String>,
    /// A file of JSON or YAML with the body of the REST request, or - for standard input; instead of flags
    #[arg(short, long, value_name = "FILE", conflicts_with_all = [
        "name", "uri", "upload", "kind", "checksum", "arg", "env", "timeout", "memory", "node", "description",
        "priority", "label", "config", "capability", "endpoint", "task_version", "input",
    ])]
    file: Option<PathBuf>,
    /// Show the body of the request and send nothing
    #[arg(long)]
    dry_run: bool,
    /// What to run: sms+file://ID, https://…, s3://BUCKET/KEY [default: nothing]
    #[arg(long, value_name = "URI", conflicts_with = "upload", help_heading = "Program")]
    uri: Option<String>,
    /// Upload this module (.wasm or .wat) and run it
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run", help_heading = "Program")]
    upload: Option<PathBuf>,
    /// What it is
    #[arg(long = "type", id = "kind", value_name = "TYPE", default_value = "wasm", value_parser = spec::TYPES, help_heading = "Program")]
    kind: String,
    /// SHA-256 of the program in hexadecimal; whoever fetches it checks it
    #[arg(long, value_name = "SHA256", requires = "uri", help_heading = "Program")]
    checksum: Option<String>,
    /// Argument of the guest; may be given again
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = "Program")]
    arg: Vec<String>,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    input: Input,
    /// What it is for
    #[arg(long, value_name = "TEXT", help_heading = "Words")]
    description: Option<String>,
    /// What goes first where there is much to do
    #[arg(long, value_name = "WORD", value_parser = spec::PRIORITIES, help_heading = "Words")]
    priority: Option<String>,
    /// Label; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Words")]
    label: Vec<(String, String)>,
    /// Setting for the node; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Words")]
    config: Vec<(String, String)>,
    /// What it can do, a free word; may be given again
    #[arg(long, value_name = "WORD", help_heading = "Words")]
    capability: Vec<String>,
    /// Where it can be reached, free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, help_heading = "Words")]
    endpoint: String,
    /// Its version, free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, help_heading = "Words")]
    task_version: String,
}

impl Create {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        let dry_run = self.dry_run;
        let spec = match &self.file {
            Some(path) => spec::read(path)?,
            None => self.spec(client).await?,
        };
        if dry_run {
            return show(client, &spec);
        }
        let body: Value = client.send(Method::POST, TASKS, Some(&spec)).await?;
        client.show.done(&TASK, &TASK.id_of(&body), "registered", &body)?;
        if let Some(execution) = body["execution_id"].as_str()
            && client.show.is_table()
        {
            client.show.done(&EXECUTION, execution, "begun", &body)?;
            next_step(client, execution);
        }
        Ok(())
    }

    async fn spec(self, client: &Client) -> Result<Spec, Stopped> {
        let input = self.input.read().await?;
        let executable = match (&self.uri, &self.upload) {
            (Some(uri), _) => {
                Some(Executable { uri: uri.clone(), checksum_sha256: self.checksum.clone(), ..Executable::default() })
            }
            (None, Some(path)) => Some(upload(client, path).await?),
            (None, None) if !self.arg.is_empty() || !self.running.env.is_empty() => {
                return Err(Stopped::usage("--arg and --env are for a program: name one with --uri or --upload"));
            }
            (None, None) => None,
        };
        let executable = executable.map(|executable| Executable {
            kind: self.kind.clone(),
            args: self.arg.clone(),
            env: self.running.variables(),
            ..executable
        });
        let mut config: std::collections::BTreeMap<String, String> = self.config.into_iter().collect();
        config.extend(self.running.settings());
        Ok(Spec {
            name: self.name.unwrap_or_default(),
            endpoint: self.endpoint,
            version: self.task_version,
            description: self.description,
            priority: self.priority,
            node_uuid: self.running.node,
            capabilities: self.capability,
            metadata: self.label.into_iter().collect(),
            config,
            executable,
            input: None,
            input_base64: in_base64(&input),
            callback_url: None,
        })
    }
}

/// Uploads a module; the part of an executable that says which.
async fn upload(client: &Client, path: &Path) -> Result<Executable, Stopped> {
    let module = module::read(path)?;
    let name = module::name(path);
    let body = file::upload_bytes(client, &name, module).await?;
    let text = |member: &str| body[member].as_str().map(str::to_owned);
    Ok(Executable {
        uri: text("uri").unwrap_or_default(),
        checksum_sha256: text("sha256"),
        name: Some(name),
        ..Executable::default()
    })
}

/// The body as it would be sent: as YAML if asked to, else as JSON.
fn show(client: &Client, spec: &Spec) -> Result<(), Stopped> {
    if client.show.quiet || client.show.form == Form::Name {
        return Err(Stopped::usage("a task that is not registered has no id: use -o json or yaml"));
    }
    let body = serde_json::to_value(spec).map_err(Stopped::failed)?;
    output::say(&client.show.document(&body)?)
}
