// SPDX-License-Identifier: EUPL-1.2
//! The command line: verbs, options and the help that teaches them.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cluster::args as cluster;

/// Sovereign video conferencing as declared objects.
#[derive(Parser)]
#[command(
    name = "plenum",
    version,
    about = "Sovereign video conferencing as declared objects",
    after_help = "Begin with:\n  \
        plenum up -f docs/examples/quickstart    # runs everything on this machine and prints the links\n  \
        plenum get conferences                   # in another terminal: what is open, who is in\n  \
        plenum down                              # stops it in good order\n\n\
        Which system a verb speaks with: `plenum` with the `plenum up` of --state-dir; `kubectl plenum` (this binary, installed\n\
        as kubectl-plenum), and `plenum` with --kubeconfig or --context, with a cluster. Only probe and report always mean a cluster."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Verbs.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Runs the manifests on this machine: control plane and media nodes as supervised processes
    #[command(
        after_help = "Saving a manifest applies the difference at once; a wrong one is reported and changes nothing.\n\
        Exit code 0: stopped in good order; 1: could not run; 2: manifests or options are wrong.\n\n\
        Examples:\n  \
        plenum up -f docs/examples/quickstart\n  \
        plenum up -f my-conferences/ --http-port 8080 --state-dir ./state\n  \
        plenum up -f my-conferences/ --bind 0.0.0.0      # others may join, with TLS; prints the CA's fingerprint\n  \
        plenum up -f my-conferences/ --output json | jq  # one JSON object per line\n  \
        plenum up -f my-conferences/ --redis redis://127.0.0.1:6379 --replicas 2   # restarts without anybody noticing"
    )]
    Up(Up),
    /// Checks manifests by schema, rules, references and schedules; starts nothing
    #[command(
        after_help = "All errors are shown at once, each with file, line, field, rule and remedy.\n\
        Exit code 0: valid; 2: something is wrong.\n\n\
        Examples:\n  \
        plenum validate -f docs/examples/quickstart\n  \
        plenum validate -f tenants/ -f conferences.yaml --output json"
    )]
    Validate {
        /// A file, or a directory whose *.yaml and *.yml are read; may be repeated
        #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
        files: Vec<PathBuf>,
        /// Form of the report
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Shows objects of the running system with their state
    #[command(after_help = "Examples:\n  \
        plenum get conferences\n  \
        plenum get nodes -o wide\n  \
        plenum get replicas\n  \
        plenum get conference council -o yaml\n  \
        plenum get tenants -o json | jq '.items[].status'")]
    Get {
        /// Kind
        #[arg(value_enum)]
        kind: Kind,
        /// Name, or NAMESPACE/NAME where a name stands in several namespaces
        name: Option<String>,
        /// Form of the answer; a table without it
        #[arg(short, long, value_enum)]
        output: Option<Form>,
        #[command(flatten)]
        state: State,
    },
    /// Shows one object with everything that is known about it, links included
    #[command(after_help = "Examples:\n  \
        plenum describe conference council\n  \
        plenum describe node local-0")]
    Describe {
        /// Kind
        #[arg(value_enum)]
        kind: Kind,
        /// Name, or NAMESPACE/NAME where a name stands in several namespaces
        name: String,
        #[command(flatten)]
        state: State,
    },
    /// Stops the running system in good order and waits until it is gone
    #[command(after_help = "Example:\n  plenum down")]
    Down {
        #[command(flatten)]
        state: State,
    },
    /// Shows pools, nodes, tenants and conferences; of a cluster also what hinders them
    #[command(after_help = cluster::STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        options: cluster::Status,
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        access: cluster::Access,
    },
    /// Empties a media node: no new rooms, and its rooms move to others by the deadline
    #[command(
        after_help = "Waits until the node is empty and shows what is left; Ctrl-C ends the waiting, not the drain. Empty rooms go \
        at once; people are told before theirs moves, and are away for a moment when it does. Rooms that find no place on \
        another node within 60 s after their time are given up: their people come back as soon as there is capacity. The node \
        stays empty until --undo or the next start. With --kubeconfig or --context it is a MediaNode of that cluster, and the \
        operator drains it; `kubectl plenum drain --help` says how.\n\
        Exit code 0: empty; 1: it could not be done, the drain was called off, or --timeout has passed.\n\n\
        Examples:\n  \
        plenum drain local-0\n  \
        plenum drain local-0 --no-wait\n  \
        plenum drain local-0 --deadline 60s --timeout 2m\n  \
        plenum drain local-0 --undo\n  \
        plenum drain media/frankfurt-a-3f9c21-x7k2p --context production"
    )]
    Drain {
        #[command(flatten)]
        options: cluster::Drain,
        /// The same as --deadline, in seconds
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=86_400), conflicts_with = "deadline")]
        timeout_seconds: Option<u64>,
        /// Lets the node take rooms again
        #[arg(long, conflicts_with_all = ["timeout_seconds", "deadline", "on_deadline"])]
        undo: bool,
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        access: cluster::Access,
    },
    /// Lets a media node take rooms again, the same as drain --undo
    #[command(
        alias = "cancel",
        after_help = "In a cluster a drain that people have been told of cannot be taken back.\n\n\
        Examples:\n  \
        plenum uncordon local-0\n  \
        plenum uncordon frankfurt-a-3f9c21-x7k2p --context production"
    )]
    Uncordon {
        #[command(flatten)]
        options: cluster::Uncordon,
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        access: cluster::Access,
    },
    /// Writes a support bundle of a cluster: objects, Events, pods and logs; no Secret is read
    #[command(after_help = cluster::REPORT_HELP)]
    Report {
        #[command(flatten)]
        options: cluster::Report,
        #[command(flatten)]
        access: cluster::Access,
    },
    /// Checks an installation in a cluster from inside, for `helm test`
    #[command(after_help = cluster::PROBE_HELP)]
    Probe {
        #[command(flatten)]
        options: cluster::Probe,
        #[command(flatten)]
        access: cluster::Access,
    },
    /// Restarts parts of the running system one after the other, without ending a conference
    #[command(
        after_help = "The next one is restarted only once the last one serves again. A node is drained first, as by `plenum drain`, and \
        takes rooms again afterwards; with one node only, its people wait until it is back. A replica's people resume through \
        another one; with one replica only nobody joins for a moment. Ctrl-C ends the waiting, not the restart.\n\
        Exit code 0: all serve again; 1: it could not be done.\n\n\
        Examples:\n  \
        plenum restart replicas\n  \
        plenum restart nodes --timeout-seconds 0    # rooms move at once\n  \
        plenum restart local-0\n  \
        plenum restart --status"
    )]
    Restart {
        /// `replicas`, `nodes`, or the name of one, see `plenum get replicas` and `plenum get nodes`
        #[arg(required_unless_present = "status")]
        what: Option<String>,
        /// How long rooms of a node may go on before they are moved; the pool's drain.timeout without it, at once with
        /// drain.strategy: Move
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=86_400))]
        timeout_seconds: Option<u64>,
        /// Returns at once
        #[arg(long)]
        no_wait: bool,
        /// Follows the restart that is under way
        #[arg(long, conflicts_with_all = ["what", "timeout_seconds"])]
        status: bool,
        /// Form of the report; JSON is one object per line
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// Becomes a child that dies with its parent
    #[command(hide = true)]
    Child {
        /// Process id of the parent
        #[arg(long)]
        parent: i32,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// Options of `plenum up`.
#[derive(Args)]
pub(crate) struct Up {
    /// A file, or a directory whose *.yaml and *.yml are read; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Address people reach the pages at; anything but loopback is served with TLS by a CA that is made for it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Port of the pages, of signalling and of the API
    #[arg(long, value_name = "PORT", default_value_t = 7880)]
    pub(crate) http_port: u16,
    /// Own address for media, may be repeated; without it loopback and the machine's primary addresses
    #[arg(long, value_name = "IP")]
    pub(crate) media_address: Vec<IpAddr>,
    /// Lets the publicly known keys of the examples be used with --bind
    #[arg(long)]
    pub(crate) insecure_dev_keys: bool,
    /// Store that replicas share and that outlives them: redis://HOST:PORT, or rediss:// for TLS. Without it the state is in the
    /// memory of the control plane. A URL with a password is better given by the environment
    #[arg(
        long,
        value_name = "URL",
        env = "PLENUM_REDIS_URL",
        hide_env_values = true
    )]
    pub(crate) redis: Option<String>,
    /// CA of the store's certificate; the system's CAs without it
    #[arg(long, value_name = "FILE", requires = "redis")]
    pub(crate) redis_ca: Option<PathBuf>,
    /// Part of every key in the store, so that several systems can share one; made from the state directory's own key without it
    #[arg(long, value_name = "NAME", requires = "redis")]
    pub(crate) redis_namespace: Option<String>,
    /// Replicas of the control plane, at most 8; more than one needs --redis
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        alias = "control-plane-replicas"
    )]
    pub(crate) replicas: u32,
    /// Network, as in 10.0.0.0/8, in which receivers of webhooks may live beside this machine and public addresses; may be repeated
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub(crate) webhook_network: Vec<String>,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) state: State,
}

/// Where a running system keeps its state and answers.
#[derive(Args)]
pub(crate) struct State {
    /// Directory with generated Secrets, certificates, logs and the socket; one running system each
    #[arg(long, value_name = "DIR", env = "PLENUM_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl State {
    /// The directory given, or the default: under `XDG_STATE_HOME`, else under the home directory, else `.plenum`.
    pub(crate) fn path(&self) -> PathBuf {
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        self.state_dir.clone().unwrap_or_else(|| {
            set("XDG_STATE_HOME")
                .or_else(|| set("HOME").map(|home| home.join(".local/state")))
                .map_or_else(|| PathBuf::from(".plenum"), |base| base.join("plenum"))
        })
    }
}

/// Form of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Form of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A table with more columns.
    Wide,
    /// The objects as YAML.
    Yaml,
    /// The objects as JSON.
    Json,
}

/// Kinds that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    /// Organisations.
    #[value(name = "tenants", aliases = ["tenant", "tn"])]
    Tenants,
    /// Conferences.
    #[value(name = "conferences", aliases = ["conference", "conf"])]
    Conferences,
    /// Media pools.
    #[value(name = "pools", aliases = ["pool", "mediapools", "mediapool", "mp"])]
    Pools,
    /// Media nodes.
    #[value(name = "nodes", aliases = ["node", "medianodes", "medianode", "mn"])]
    Nodes,
    /// Replicas of the control plane.
    #[value(name = "replicas", aliases = ["replica", "control-plane", "cp"])]
    Replicas,
}
