// SPDX-License-Identifier: EUPL-1.2
//! A tar archive in memory (POSIX.1-1988 `ustar`), as much of it as a bundle of plain files needs.

/// Everything in a tar is a multiple of this.
const BLOCK: usize = 512;
/// Longest last part of a path, and longest rest before it.
const NAME_MAX: usize = 100;
const PREFIX_MAX: usize = 155;
/// Longest part of a path; the header of a path of three such parts has room for it.
const PART_MAX: usize = 70;

/// Writes files one after the other.
#[derive(Debug, Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// Adds a file. The path is made of parts that fit, see [`part`]; one that does not fit in a header is an error.
    pub(super) fn add(&mut self, path: &str, content: &[u8], modified: i64) -> Result<(), String> {
        let (prefix, name) = split(path).ok_or_else(|| format!("{path} is too long for a tar"))?;
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| {
            if let Some(place) = header.get_mut(at..at + text.len()) {
                place.copy_from_slice(text);
            }
        };
        put(0, name.as_bytes());
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, format!("{:011o}\0", modified.max(0)).as_bytes());
        // The sum is taken with blanks in its own place.
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        put(345, prefix.as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// The archive, closed by two empty blocks.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 2 * BLOCK]);
        self.bytes
    }

    fn pad(&mut self) {
        let to = self.bytes.len().next_multiple_of(BLOCK);
        self.bytes.resize(to, 0);
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME_MAX {
        return Some(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= PREFIX_MAX && name.len() <= NAME_MAX)
}

/// A name as a part of a path: nothing that leaves the folder, and not longer than fits.
pub(super) fn part(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => char,
            _ => '_',
        })
        .take(PART_MAX)
        .collect();
    match safe.as_str() {
        "" | "." | ".." => format!("_{safe}"),
        _ => safe,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Command};

    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let folder = std::env::temp_dir().join(format!("plenum-tar-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let long = format!("bundle/logs/{}/{}/x.log", "n".repeat(70), "p".repeat(70));
        let mut tar = Tar::default();
        tar.add("bundle/INDEX.txt", b"one\n", 1_700_000_000)
            .expect("fits");
        tar.add(&long, &vec![b'y'; 1000], 1_700_000_000)
            .expect("fits");
        let file = folder.join("bundle.tar");
        std::fs::File::create(&file)
            .and_then(|mut out| out.write_all(&tar.finish()))
            .expect("written");
        let done = Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(&folder)
            .output()
            .expect("tar is installed");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert_eq!(
            std::fs::read(folder.join("bundle/INDEX.txt")).expect("there"),
            b"one\n"
        );
        assert_eq!(
            std::fs::read(folder.join(&long)).expect("there").len(),
            1000
        );
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn names_of_others_stay_inside_the_folder() {
        assert_eq!(part("../../etc/passwd"), ".._.._etc_passwd");
        assert_eq!(part(".."), "_..");
        assert_eq!(part(&"a".repeat(300)).len(), PART_MAX);
        assert!(Tar::default().add(&"a".repeat(300), b"", 0).is_err());
    }
}
