// SPDX-License-Identifier: EUPL-1.2
//! The namespaces that a cluster runs in: everything that kubelets and containers do to a machine vanishes with them, control groups
//! apart, which are swept from outside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::folder::Folder;
use crate::processes::{Process, signal_to};
use crate::system;

/// The variable that tells what the cluster's control groups are called: unique on the machine, known outside of the namespaces.
const CGROUP: &str = "PLENUM_CLUSTER_CGROUP";
/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Of the kernel's settings that a kubelet takes as its own, what it wants; it gets files of its own in their place.
const KERNEL: &[(&str, &str)] = &[
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

/// What a cluster leaves on a machine when it is killed: control groups and files.
pub(crate) struct Outside {
    folder: Folder,
    cgroup: String,
}

impl Outside {
    /// Names that nobody else on this machine uses.
    pub(crate) fn new() -> Result<Self> {
        let folder = Folder::new("o")?;
        let name = folder.path().file_name().unwrap_or_default();
        // It ends with a hyphen, so that none begins with another.
        let cgroup = format!("{}-", name.to_string_lossy());
        Ok(Self { folder, cgroup })
    }

    /// Tells a program that starts a cluster where to leave it.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env(CGROUP, &self.cgroup)
            .env("TMPDIR", self.folder.path())
            .env("PLENUM_E2E_QUIET", "1")
    }

    /// First part of the names of control groups.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Where the cluster's files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs a test named `name` in namespaces in which a [`super::Cluster`] can be started, and sweeps the machine afterwards, whatever
/// has become of it.
///
/// # Errors
/// When the namespaces cannot be made (it takes root), the test inside fails, or something is left.
pub fn in_cluster_namespace(name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if system::is_inside(name) {
        return body();
    }
    let outside = Outside::new()?;
    let status = outside
        .tell(&mut system::namespaced(name)?)
        .status()
        .context("unshare (util-linux) starts the test's namespaces");
    sweep(outside.cgroup())?;
    let status = status?;
    if !status.success() {
        bail!(
            "{name} failed in its namespaces ({status}); they need root and what .ci/install names"
        );
    }
    Ok(())
}

/// A command that starts `program` in namespaces in which a cluster can be started.
pub(crate) fn namespaced(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .arg("--mount-proc")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("inside.sh"))
        .arg(program);
    command
}

/// Makes this mount namespace fit for kubelets, once; gives the first part of the names of control groups.
pub(crate) fn furnish() -> Result<String> {
    let first = std::fs::read("/proc/1/cmdline").unwrap_or_default();
    ensure!(
        String::from_utf8_lossy(&first).contains("inside.sh"),
        "a cluster is started in namespaces of its own only: use in_cluster_namespace"
    );
    let cgroup = std::env::var(CGROUP).context("in_cluster_namespace names the control groups")?;
    let done = Path::new("/run/plenum-cluster");
    if done.exists() {
        return Ok(cgroup);
    }
    for folder in ["/run", "/var/log", "/var/lib/cni"] {
        std::fs::create_dir_all(folder)?;
        run("mount", &["-t", "tmpfs", "tmpfs", folder])?;
    }
    for (file, value) in KERNEL {
        if !Path::new(file).exists() {
            continue;
        }
        let own = PathBuf::from(format!("/run/sysctl{}", file.replace('/', "-")));
        std::fs::write(&own, format!("{value}\n"))?;
        crate::processes::mount(&own, Path::new(file))?;
    }
    std::fs::write(done, "")?;
    Ok(cgroup)
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} starts"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}

/// Hierarchies of control groups: one folder for each controller of version 1, or the root of version 2.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(&root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    found
}

/// Makes a control group in every hierarchy.
pub(crate) fn make_cgroup(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        std::fs::create_dir_all(&group)
            .with_context(|| format!("the control group {} is made", group.display()))?;
        // An empty set of processors or memory takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read_to_string(hierarchy.join(file)) {
                std::fs::write(group.join(file), value)?;
            }
        }
        let controllers = "+cpuset +cpu +io +memory +pids";
        if hierarchy.join("cgroup.subtree_control").exists() && hierarchies().len() == 1 {
            std::fs::write(hierarchy.join("cgroup.subtree_control"), controllers)?;
            std::fs::write(group.join("cgroup.subtree_control"), controllers)?;
        }
    }
    Ok(())
}

/// All control groups whose first name begins with `prefix`, children before their parents.
fn groups(prefix: &str) -> Vec<PathBuf> {
    fn below(group: PathBuf, all: &mut Vec<PathBuf>) {
        let children = std::fs::read_dir(&group).into_iter().flatten().flatten();
        for child in children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            below(child.path(), all);
        }
        all.push(group);
    }
    let mut all = Vec::new();
    for hierarchy in hierarchies() {
        for entry in std::fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                below(entry.path(), &mut all);
            }
        }
    }
    all
}

/// Kills what runs in control groups whose name begins with `prefix`, and removes them.
pub(crate) fn sweep(prefix: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let groups = groups(prefix);
        if groups.is_empty() {
            return Ok(());
        }
        for group in &groups {
            let pids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            // 0 is a process of another process namespace, which is not ours to end.
            for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
                if pid > 0 {
                    let _ = signal_to(pid, Signal::KILL);
                }
            }
            let _ = std::fs::remove_dir(group);
        }
        if Instant::now() > end {
            bail!("control groups are left: {groups:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends the shims that a containerd has started, found by its socket.
pub(crate) fn end_shims(socket: &Path) {
    let socket = socket.to_string_lossy();
    for shim in Process::all("containerd-shim-runc-v2") {
        if shim.args.iter().any(|word| *word == socket) {
            let _ = shim.signal(Signal::KILL);
        }
    }
}

/// Lets go of everything that is mounted below a folder.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|path| Path::new(path).starts_with(folder))
        .collect();
    below.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in below {
        let _ = run("umount", &["--lazy", path]);
    }
}
