// SPDX-License-Identifier: EUPL-1.2
//! The clock of one replica jumps.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::processes::{Held, mount};
use e2e::system::{Setup, program};
use plenum_load::person::record::Happened;

use crate::lab::{LIVENESS, Lab, folder, replica, run, shape, until};

/// One hour ahead, one behind, and back; nobody notices, and the replica lets people in meanwhile.
pub(crate) fn jumps(name: &'static str) -> Result<()> {
    let library = faketime()?;
    let bin = folder(name).join("bin");
    std::fs::create_dir_all(&bin)?;
    let (real, copy) = (program("control-plane")?, bin.join("control-plane"));
    std::fs::File::create(&copy)?;
    mount(&real, &copy)?;
    let offset = bin.join("offset");
    std::fs::write(&offset, "+0\n")?;
    let script = bin.join("with-own-clock");
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\ncase \"$*\" in *'--replica-id local-1 '*)\n  export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} \
             FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1 ;;\nesac\nexec {} \"$@\"\n",
            library.display(),
            offset.display(),
            copy.display()
        ),
    )?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let _wrapped = Held::replaced(&real, &script)?;
    run(name, Setup::default(), shape(), async |lab| {
        let from = lab.crowd.now();
        for (index, jump) in ["+3600", "+0", "-3600", "+0"].into_iter().enumerate() {
            set(&offset, jump)?;
            noticed(lab, jump).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let (jumped, other) = (replica("local-1")?.gateway(), replica("local-0")?.gateway());
            lab.enters("room-0", &format!("late-{index}"), &jumped)
                .await?;
            lab.meet(&format!("new-{index}"), &[jumped, other]).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let figures = lab.settled(from).await;
        lab.without_a_gap("jumps", &figures)?;
        for (_, person) in lab.crowd.people() {
            let record = person.record();
            let noticed = record.count(from, |what| *what != Happened::Joined);
            ensure!(
                noticed == 0,
                "{} noticed: {:?}",
                record.identity,
                record.happened
            );
        }
        lab.one_state().await
    })
}

fn set(offset: &Path, jump: &str) -> Result<()> {
    // In one step: the replica reads it at any time.
    let next = offset.with_extension("next");
    std::fs::write(&next, format!("{jump}\n"))?;
    Ok(std::fs::rename(next, offset)?)
}

/// The replica has seen its machine's clock jump: it says so in its log.
async fn noticed(lab: &Lab, jump: &str) -> Result<()> {
    let wanted: i64 = jump.parse()?;
    let log = lab.system.folder().join("state/logs/control-plane-1.log");
    until("the replica sees the clock jump", LIVENESS, async || {
        let said = std::fs::read_to_string(&log)?;
        let last = said
            .lines()
            .rfind(|line| line.contains("::clocks"))
            .context("it said nothing of clocks")?;
        let offset = match last.split_once("offset_ms=") {
            Some((said, offset)) if said.contains("is not followed") => {
                let digits = offset.split_whitespace().next().unwrap_or_default();
                digits.parse::<i64>()? / 1_000
            }
            None if last.contains("the clocks agree again") => 0,
            _ => bail!("it said last: {last}"),
        };
        ensure!(
            (offset - wanted).abs() < 60,
            "set to {jump}, it said last: {last}"
        );
        Ok(())
    })
    .await
}

fn faketime() -> Result<PathBuf> {
    for entry in std::fs::read_dir("/usr/lib")?.flatten() {
        let library = entry.path().join("faketime/libfaketimeMT.so.1");
        if library.exists() {
            return Ok(library);
        }
    }
    None.context("libfaketime (Debian: libfaketime) is installed")
}
