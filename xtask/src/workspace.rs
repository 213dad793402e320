//! The checkout that this program works on: its lock file, its cargo, and where it notes its libtorch.

use std::{
    env, fs,
    path::{self, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Which libtorch a version of torch-sys is written for: `TORCH_VERSION` in its build script.
const LIBTORCH_OF_TORCH_SYS: [(&str, &str); 2] = [("0.24.", "2.11.0"), ("0.26.", "2.13.0")];

/// The workspace's root folder.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// The workspace of this program: cargo tells its folder at run time, so that a moved checkout is no matter.
    pub(crate) fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package.parent().context("xtask lies in no workspace")?;
        Ok(Self { root: root.to_owned() })
    }

    /// A cargo command on this workspace.
    ///
    /// `LIBTORCH` is left to the file in which it is noted. This process got that file's value at its own start, which `setup` may
    /// have replaced since, and cargo would prefer the old one.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).env_remove("LIBTORCH");
        cargo
    }

    /// The libtorch version that the locked torch-sys wants.
    pub(crate) fn libtorch_version(&self) -> Result<&'static str> {
        let lock = parse_toml(&self.root.join("Cargo.lock"))?;
        let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock lists no packages")?;
        let torch_sys = packages
            .iter()
            .find(|package| text(package, "name") == Some("torch-sys"))
            .and_then(|package| text(package, "version"))
            .context("Cargo.lock holds no torch-sys: run `cargo generate-lockfile`")?;
        match LIBTORCH_OF_TORCH_SYS.iter().find(|(prefix, _)| torch_sys.starts_with(prefix)) {
            Some((_, libtorch)) => Ok(libtorch),
            None => bail!("no libtorch version is known for torch-sys {torch_sys}: add it to xtask/src/workspace.rs"),
        }
    }

    /// The file through which cargo gets `LIBTORCH`.
    pub(crate) fn note_path(&self) -> PathBuf {
        self.root.join(".cargo/libtorch.toml")
    }

    /// The libtorch that an earlier `setup` noted.
    pub(crate) fn noted_libtorch(&self) -> Option<PathBuf> {
        let note = parse_toml(&self.note_path()).ok()?;
        note.get("env")?.get("LIBTORCH")?.as_str().map(PathBuf::from)
    }

    /// The user's own choice of libtorch. Cargo puts the noted one into the same variable, so an equal value is none.
    ///
    /// It is absolute, since build scripts run in other folders.
    pub(crate) fn users_libtorch(&self) -> Option<PathBuf> {
        let path = env::var_os("LIBTORCH").filter(|path| !path.is_empty())?;
        let path = path::absolute(path).ok()?;
        (Some(&path) != self.noted_libtorch().as_ref()).then_some(path)
    }

    /// Notes `libtorch` for cargo. The file is replaced in one step, since a cargo may read it at any time.
    pub(crate) fn note_libtorch(&self, libtorch: &Path) -> Result<()> {
        if self.noted_libtorch().as_deref() == Some(libtorch) {
            return Ok(());
        }
        let path =
            libtorch.to_str().with_context(|| format!("{} is not valid Unicode, which cargo needs", libtorch.display()))?;
        let content = format!(
            "# Written by `cargo xtask setup`. A LIBTORCH of your own in the environment goes before it.\n[env]\nLIBTORCH = {}\n",
            toml::Value::from(path)
        );
        Ok(striate_files::write_bytes(&self.note_path(), content)?)
    }
}

/// Reads a TOML file.
pub(crate) fn parse_toml(path: &Path) -> Result<toml::Value> {
    let content = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    content.parse::<toml::Table>().map(toml::Value::Table).with_context(|| format!("{} is not valid", path.display()))
}

/// The string under `key`.
pub(crate) fn text<'a>(table: &'a toml::Value, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str()
}
