//! What was measured, kept for drawing: one JSON file per measurement, with the machine it was measured on.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fs, path::PathBuf, process::Command};

/// The machine, without its name.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: usize,
    pub kernel: String,
    pub disk: String,
}

impl Machine {
    pub fn here() -> Result<Self> {
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            line.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned())).unwrap_or_default()
        };
        let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal");
        let kib: usize = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let version = kernel.split(['-', '\n']).next().unwrap_or_default().to_owned();
        let mount = Command::new("findmnt").args(["-no", "FSTYPE", "-T"]).arg(directory()?).output();
        let system = mount.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        Ok(Self {
            processor: field(&fs::read_to_string("/proc/cpuinfo")?, "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: version,
            disk: format!("virtual disk, {system}"),
        })
    }
}

/// Where results lie: beside the program.
pub fn directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let dir = program.parent().context("a program lies in a directory")?.join("results");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    machine: Machine,
    figures: T,
}

pub fn keep<T: Serialize>(name: &str, figures: &T) -> Result<()> {
    let path = directory()?.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_vec_pretty(&Kept { machine: Machine::here()?, figures })?)?;
    println!("kept in {}", path.display());
    Ok(())
}

/// None when it was never measured.
pub fn read<T: DeserializeOwned>(name: &str) -> Result<Option<(Machine, T)>> {
    let path = directory()?.join(format!("{name}.json"));
    if !path.exists() {
        return Ok(None);
    }
    let kept: Kept<T> = serde_json::from_slice(&fs::read(path)?)?;
    Ok(Some((kept.machine, kept.figures)))
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The value that so much of all stays within.
pub fn within(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * part).ceil() as usize).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}
