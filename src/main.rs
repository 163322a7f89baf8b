//! `unlearn-proxy`: serves a model behind policies.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use unlearn_proxy::config::{Config, ConfigError, Flags, ModelSource, process_environment};
use unlearn_proxy::http::{self, HttpState};
use unlearn_proxy::service::app::{self, AppError};
use unlearn_proxy::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An OpenAI-compatible proxy that makes a language model behave as if it had never learnt a topic.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  unlearn-proxy                                       serve models/lab/full under policies/
  unlearn-proxy --model ./my-llama --policies ./mine  serve your own model
  unlearn-proxy --upstream http://127.0.0.1:8000/v1   guard any OpenAI-compatible server
  unlearn-proxy check                                 list all problems of configuration and policies"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// Configuration file; every key is documented in deploy/proxy.toml.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8080].
    #[arg(long, global = true)]
    listen: Option<String>,
    /// Model folder in Hugging Face layout, or hub id [default: models/lab/full].
    #[arg(long, global = true)]
    model: Option<PathBuf>,
    /// Base URL of an OpenAI-compatible server to guard instead of a local model.
    #[arg(long, global = true)]
    upstream: Option<String>,
    /// Id that clients send for the local model.
    #[arg(long, global = true)]
    model_id: Option<String>,
    /// Folder of policies [default: policies].
    #[arg(long, global = true)]
    policies: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Check configuration and policies, print every problem, and stop.
    Check,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let flags = Flags {
        listen: cli.options.listen,
        model: cli.options.model,
        upstream: cli.options.upstream,
        model_id: cli.options.model_id,
        policies: cli.options.policies,
    };
    let result = Config::load(flags, cli.options.config.as_deref(), &process_environment)
        .map_err(anyhow::Error::from)
        .and_then(|config| match cli.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(&config),
            Command::Check => check(&config),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place that tells the operator why it stopped")]
fn report(error: &anyhow::Error) {
    if let Some(ConfigError::Invalid { problems }) = error.downcast_ref() {
        for problem in problems {
            eprintln!("{problem}");
        }
    } else if let Some(AppError::Policies(problems)) = error.downcast_ref() {
        for problem in problems {
            eprintln!("{problem}");
        }
    } else {
        eprintln!("error: {error:#}");
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn check(config: &Config) -> anyhow::Result<()> {
    let policies = app::check(config)?;
    for policy in &policies.policies {
        println!(
            "{}: topic `{}`, revision {}: fine",
            policy.path.display(),
            policy.topic,
            policy.revision
        );
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the ready line is for the person at the terminal")]
fn serve(config: &Config) -> anyhow::Result<()> {
    telemetry::init_tracing(config.log_json, telemetry::SERVER_LOG);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {} (is the port in use? try --listen)", config.listen))?;
        let app = app::build(config)?;
        let model = match &config.model {
            ModelSource::Local { id, .. } => id.clone(),
            ModelSource::Upstream { .. } => "MODEL".to_owned(),
        };
        tokio::spawn(app.reloader.run());
        let state = HttpState {
            backend: app.backend,
            metrics: app.metrics,
            api_key: config.api_key.as_ref().map(|it| it.expose().to_owned()),
            operator_key: config.operator_key.as_ref().map(|it| it.expose().to_owned()),
            max_body_bytes: config.max_body_bytes,
        };
        let address = listener.local_addr()?;
        println!(
            "ready: http://{address}/v1 serves `{model}` under {} ({} topics). Try:\n\
             curl -s http://{address}/v1/chat/completions -H 'content-type: application/json' -d '{{\"model\": \
             \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}]}}'",
            config.policies.display(),
            app.policies.policies.len(),
        );
        let stop = Arc::new(tokio::sync::Notify::new());
        let notify = stop.clone();
        let server = http::serve(listener, state, async move { stop.notified().await });
        tokio::pin!(server);
        tokio::select! {
            result = &mut server => return Ok(result?),
            () = stopped() => notify.notify_one(),
        }
        // Running replies may end; a second signal, or the time limit, cuts them off.
        tokio::select! {
            result = &mut server => Ok(result?),
            () = stopped() => Ok(()),
            () = tokio::time::sleep(config.drain) => Ok(()),
        }
    })
}

/// Ctrl-C, or the signal that container runtimes send.
async fn stopped() {
    let mut terminate =
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(error) => {
                tracing::warn!(%error, "cannot watch for SIGTERM");
                return drop(tokio::signal::ctrl_c().await);
            }
        };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
