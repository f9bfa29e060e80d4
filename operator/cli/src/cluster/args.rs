// SPDX-License-Identifier: EUPL-1.2
//! Options of the verbs that speak with a cluster, and the command line of `kubectl plenum`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use plenum_api::{GoDuration, media_pool::OnDeadline};

use crate::args::Output;

/// The command line when the binary is called `kubectl-plenum`.
#[derive(Parser)]
#[command(
    name = "kubectl-plenum",
    bin_name = "kubectl plenum",
    version,
    about = "Sovereign video conferencing as declared objects: the cluster's view",
    after_help = "It speaks with the cluster of KUBECONFIG; --kubeconfig and --context name another one. The same binary called\n\
        `plenum` runs Plenum on one machine.\n\n\
        Begin with:\n  \
        kubectl plenum status                    # what runs, and what hinders what does not\n  \
        kubectl plenum drain NODE                # empties a media node without ending a call\n  \
        kubectl plenum report                    # a support bundle without secrets"
)]
pub(crate) struct Kubectl {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: KubectlVerb,
}

/// Verbs of `kubectl plenum`.
#[derive(Subcommand)]
pub(crate) enum KubectlVerb {
    /// Shows pools, nodes, tenants and conferences, and what hinders them
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        options: Status,
        #[command(flatten)]
        access: Access,
    },
    /// Empties a media node: no new rooms, and its rooms end or move by the deadline
    #[command(after_help = DRAIN_HELP)]
    Drain {
        #[command(flatten)]
        options: Drain,
        #[command(flatten)]
        access: Access,
    },
    /// Lets a media node take rooms again: takes back a drain that is not announced yet, and `unschedulable`
    #[command(alias = "cancel", after_help = UNCORDON_HELP)]
    Uncordon {
        #[command(flatten)]
        options: Uncordon,
        #[command(flatten)]
        access: Access,
    },
    /// Writes a support bundle: objects, Events, pods and logs; no Secret is read
    #[command(after_help = REPORT_HELP)]
    Report {
        #[command(flatten)]
        options: Report,
        #[command(flatten)]
        access: Access,
    },
    /// Checks an installation from inside, for `helm test`
    #[command(after_help = PROBE_HELP)]
    Probe {
        #[command(flatten)]
        options: Probe,
        #[command(flatten)]
        access: Access,
    },
    /// Checks manifests by schema, rules, references and schedules, without a cluster
    Validate {
        /// A file, or a directory whose *.yaml and *.yml are read; may be repeated
        #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
        files: Vec<PathBuf>,
        /// Form of the report
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

pub(crate) const STATUS_EXAMPLES: &str = "Hindered objects come first. WHY shows the reason and the message of the condition \
    that hinders most.\n\n\
    Examples:\n  \
    kubectl plenum status\n  \
    kubectl plenum status --namespace tenant-city\n  \
    kubectl plenum status --all\n  \
    kubectl plenum status -o json | jq '.conferences[] | select(.hindrances != [])'";

pub(crate) const DRAIN_HELP: &str = "Sets spec.drain of the MediaNode, as `kubectl delete medianode` does before it deletes. \
    Waits until the node is empty and shows what is left; Ctrl-C ends the waiting, not the drain. Load is shown as the status \
    has it, in powers of two. The operator tells people before their room moves; from then on there is no way back.\n\
    Exit code 0: empty or gone; 1: it could not be done, it was called off, or --timeout has passed.\n\n\
    Examples:\n  \
    kubectl plenum drain frankfurt-a-3f9c21-x7k2p\n  \
    kubectl plenum drain media/frankfurt-a-3f9c21-x7k2p --no-wait\n  \
    kubectl plenum drain frankfurt-a-3f9c21-x7k2p --deadline 10m --timeout 15m\n  \
    kubectl plenum uncordon frankfurt-a-3f9c21-x7k2p";

pub(crate) const UNCORDON_HELP: &str = "A drain that people have been told of cannot be taken back.\n\n\
    Examples:\n  \
    kubectl plenum uncordon frankfurt-a-3f9c21-x7k2p\n  \
    kubectl plenum cancel media/frankfurt-a-3f9c21-x7k2p";

pub(crate) const REPORT_HELP: &str = "What is in the bundle is listed before it is written, and stands in its INDEX.txt. Secrets \
    are never read, ConfigMaps neither; values of environment variables and of whatever is named like a key, token or password \
    are replaced by a mark. Names of tenants and conferences stay: look at the bundle before you hand it on.\n\n\
    Examples:\n  \
    kubectl plenum report\n  \
    kubectl plenum report --output-file bundle.tar.gz --since 30m\n  \
    kubectl plenum report --list      # says what would be in it, writes nothing";

pub(crate) const PROBE_HELP: &str = "Each check that is asked for is made, also when an earlier one fails.\n\
    Exit code 0: all hold; 1: one does not.\n\n\
    Example:\n  \
    plenum probe --gateway https://plenum-gateway.plenum-system.svc --gateway-ca /tls/ca.crt \\\n    \
    --media 192.0.2.10:20000 --dry-run-namespace tenant-city";

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
// The group would have the name of the verb.
#[group(skip)]
pub(crate) struct Access {
    /// File with clusters and credentials; KUBECONFIG or ~/.kube/config without it, in a pod its service account
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current one without it
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) context: Option<String>,
    /// Namespace to look in; all without it
    #[arg(short, long, value_name = "NAME", value_parser = dns_label, help_heading = "Cluster")]
    pub(crate) namespace: Option<String>,
}

impl Access {
    /// A cluster was named.
    pub(crate) fn named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// Form of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusForm {
    /// Tables for people.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Options of `status`.
#[derive(Args, Clone, Debug, Default)]
// The group would have the name of the verb.
#[group(skip)]
pub(crate) struct Status {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = StatusForm::Text)]
    pub(crate) output: StatusForm,
    /// Shows every object, not only the first of each kind
    #[arg(long)]
    pub(crate) all: bool,
}

/// Options of `drain` in a cluster.
#[derive(Args, Clone, Debug)]
// The group would have the name of the verb.
#[group(skip)]
pub(crate) struct Drain {
    /// Name of the node, or NAMESPACE/NAME; see `kubectl get medianodes -A`
    pub(crate) node: String,
    /// How long rooms may go on before they are moved, as in 90s, 15m or 2h; the pool's drain.timeout without it
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) deadline: Option<Duration>,
    /// What happens to rooms at the deadline; the pool's drain.onDeadline without it
    #[arg(long, value_name = "Move|Terminate", value_parser = on_deadline)]
    pub(crate) on_deadline: Option<OnDeadline>,
    /// Waits until the node is empty; it does so anyway
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) wait: bool,
    /// Returns at once
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait at most; the drain goes on afterwards
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Form of the report; JSON is one object per line
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

impl Drain {
    /// With the deadline in seconds where it was given so.
    pub(crate) fn within(mut self, seconds: Option<u64>) -> Self {
        self.deadline = self.deadline.or(seconds.map(Duration::from_secs));
        self
    }

    /// The same node, to be taken back.
    pub(crate) fn taken_back(self) -> Uncordon {
        Uncordon {
            node: self.node,
            output: self.output,
        }
    }
}

/// Options of `uncordon`.
#[derive(Args, Clone, Debug)]
// The group would have the name of the verb.
#[group(skip)]
pub(crate) struct Uncordon {
    /// Name of the node, or NAMESPACE/NAME
    pub(crate) node: String,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
// The group would have the name of the verb.
#[group(skip)]
pub(crate) struct Report {
    /// Where it is written; plenum-report-TIME.tar.gz here without it. An existing file is not replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
    /// Logs of this last while
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2h")]
    pub(crate) since: Duration,
    /// Bytes of the log of one container, the last ones
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(..=64 << 20))]
    pub(crate) log_bytes: u64,
    /// Says what would be in it, and writes nothing
    #[arg(long)]
    pub(crate) list: bool,
}

/// Options of `probe`.
#[derive(Args, Clone, Debug)]
// The group would have the name of the verb.
#[group(skip)]
pub(crate) struct Probe {
    /// Gateway that must say that it is ready: https://NAME[:PORT]
    #[arg(long, value_name = "URL")]
    pub(crate) gateway: Option<String>,
    /// CA of the gateway's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "gateway")]
    pub(crate) gateway_ca: Option<PathBuf>,
    /// Name in the gateway's certificate, where it is another than in the URL
    #[arg(long, value_name = "NAME", requires = "gateway")]
    pub(crate) gateway_name: Option<String>,
    /// Media address that must answer STUN over UDP; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) media: Vec<SocketAddr>,
    /// Asks the cluster for the media addresses, those of all nodes that are ready; at least one must be there
    #[arg(long)]
    pub(crate) media_from_cluster: bool,
    /// Namespace of a tenant in which a Conference must be accepted, as a dry run: nothing is kept
    #[arg(long, value_name = "NAMESPACE", value_parser = dns_label)]
    pub(crate) dry_run_namespace: Option<String>,
    /// How long each check is tried again
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    GoDuration::new(text)
        .to_std()
        .map_err(|error| error.to_string())
}

fn on_deadline(text: &str) -> Result<OnDeadline, String> {
    OnDeadline::ALL
        .iter()
        .copied()
        .find(|value| value.as_str() == text)
        .ok_or_else(|| "write Move or Terminate".to_owned())
}

fn dns_label(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    fits.then(|| text.to_owned()).ok_or_else(|| {
        "a namespace has at most 63 small letters, digits and hyphens, with a letter or digit at both ends"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn both_command_lines_hold_together() {
        Kubectl::command().debug_assert();
        crate::args::Cli::command().debug_assert();
    }

    #[test]
    fn a_drain_is_said_in_either_form() {
        let parsed = |args: &[&str]| {
            let args = ["kubectl-plenum", "drain"].iter().chain(args).copied();
            Kubectl::try_parse_from(args).map(|parsed| parsed.verb)
        };
        let verb = parsed(&[
            "n",
            "--deadline",
            "1h30m",
            "--on-deadline",
            "Move",
            "--wait",
        ]);
        let Ok(KubectlVerb::Drain { options, .. }) = verb else {
            panic!("no drain");
        };
        assert_eq!(options.deadline, Some(Duration::from_secs(5400)));
        assert!(parsed(&["n", "--deadline", "soon"]).is_err());
        assert!(parsed(&["n", "--wait", "--no-wait"]).is_err());
        assert!(parsed(&["n", "-n", "Wrong_Name"]).is_err());
    }
}
