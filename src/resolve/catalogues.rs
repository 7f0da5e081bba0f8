//! The catalogues of a project: stead's own, the user's, the project's.

use std::{fs, io, path::PathBuf, sync::OnceLock};

use crate::{
    boxes::catalogue::{Catalogue, CatalogueError, Resolved},
    failure::Failure,
    fetch::Fetcher,
    host::{digest::name_of, file, open, paths::DataDir, runtime::runtime},
    machinefile::Project,
    report::clean::Shown,
};

/// Catalogues are read at once, but parsed only when a box is looked up: most commands never do.
pub struct Catalogues {
    /// Later ones take precedence.
    texts: Vec<Text>,
    /// The path of a catalogue that the Machinefile names but that does not exist. Reported only
    /// when a box is looked up, so that machines can be halted or destroyed without it.
    missing: Option<String>,
    /// The project's catalogue is at a URL and has not been fetched yet.
    absent: bool,
    parsed: OnceLock<Catalogue>,
}

/// A catalogue that is not parsed yet.
struct Text {
    /// Its name for errors.
    source: String,
    text: String,
    /// Whether errors may show its words: a project must not choose which file of this computer that is.
    is_shown: bool,
}

impl Text {
    fn parse(&self) -> Result<Catalogue, CatalogueError> {
        Catalogue::parse(&self.text, &self.source).map_err(|error| match error {
            CatalogueError::Malformed {
                source_name, line, ..
            } if !self.is_shown => CatalogueError::Malformed {
                source_name,
                line,
                message: "this is not a line of a catalogue; it is not shown, because the file is outside of the project".into(),
            },
            error => error,
        })
    }
}

impl Catalogues {
    /// Reads the catalogues. One at a URL is read from the copy that `refresh` made, if any.
    pub fn open(data: &DataDir, project: Option<&Project>) -> Result<Self, Failure> {
        let mut texts = Vec::new();
        let mut missing = None;
        let mut absent = false;
        if let Some(file) = dirs::config_dir().map(|folder| folder.join("stead/catalogue.kdl"))
            && let Some(text) = read(&file)?
        {
            texts.push(Text {
                source: file.shown(),
                text,
                is_shown: true,
            });
        }
        match project.and_then(|project| project.catalogue.as_ref()) {
            Some(url) if url.contains("://") => match read(&copy_of(data, url))? {
                Some(text) => texts.push(Text {
                    source: url.clone(),
                    text,
                    is_shown: true,
                }),
                None => absent = true,
            },
            Some(path) => match read(&PathBuf::from(path))? {
                Some(text) => texts.push(Text {
                    source: path.clone(),
                    text,
                    is_shown: project.is_some_and(|project| {
                        let real = fs::canonicalize(path);
                        real.is_ok_and(|real| real.starts_with(&project.root))
                    }),
                }),
                None => missing = Some(path.clone()),
            },
            None => {}
        }
        Ok(Catalogues {
            texts,
            missing,
            absent,
            parsed: OnceLock::new(),
        })
    }

    /// Whether the project's catalogue has yet to be fetched by `refresh`.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// Fetches the project's catalogue if it is at a URL.
    pub fn refresh(data: &DataDir, project: &Project) -> Result<(), Failure> {
        let Some(url) = project.catalogue.as_ref().filter(|it| it.contains("://")) else {
            return Ok(());
        };
        let place = reqwest::Url::parse(url)
            .map_err(|error| Failure::error(format!("catalogue {url}: {error}"), "fix the URL"))?;
        let fetcher = Fetcher::new()?;
        let bytes = runtime()?.block_on(fetcher.small(&place))?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::error(
                format!("catalogue {url} is not text"),
                "docs/reference/catalogue.md describes catalogues",
            )
        })?;
        // A broken catalogue must not replace a good copy.
        Catalogue::parse(&text, url)?;
        let copy = copy_of(data, url);
        let write = || -> io::Result<()> {
            let folder = data.catalogues();
            fs::create_dir_all(&folder)?;
            file::replace(&copy, text.as_bytes(), file::PRIVATE)
        };
        write().map_err(|error| Failure::io(format!("write {}", copy.shown()), &error))
    }

    pub fn all(&self) -> Result<&Catalogue, CatalogueError> {
        if let Some(parsed) = self.parsed.get() {
            return Ok(parsed);
        }
        if let Some(path) = &self.missing {
            return Err(CatalogueError::Missing { path: path.clone() });
        }
        let mut catalogue = Catalogue::embedded()?;
        for text in &self.texts {
            catalogue.override_with(text.parse()?);
        }
        Ok(self.parsed.get_or_init(|| catalogue))
    }

    /// Looks up a box. `None`: no catalogue has it.
    pub fn find(
        &self,
        reference: &str,
        arch: &str,
    ) -> Result<Option<Resolved<'_>>, CatalogueError> {
        let name = reference.split([' ', '/']).next().unwrap_or(reference);
        let mentioned = self.missing.is_some()
            || Catalogue::embedded_mentions(name)
            || self.texts.iter().any(|text| text.text.contains(name));
        if !mentioned {
            return Ok(None);
        }
        self.all()?.find(reference, arch).transpose()
    }
}

fn copy_of(data: &DataDir, url: &str) -> PathBuf {
    data.catalogues().join(format!("{}.kdl", name_of(url, 16)))
}

fn read(path: &std::path::Path) -> Result<Option<String>, Failure> {
    /// In bytes; far more than any catalogue has.
    const LARGEST: u64 = 16 << 20;
    match open::text(path, LARGEST) {
        Ok(text) => Ok(Some(text)),
        // XDG_CONFIG_HOME may name a file.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::error(
            format!("cannot read catalogue {}: {error}", path.shown()),
            "make it a text file that you can read, or remove it; docs/reference/catalogue.md describes catalogues",
        )),
    }
}
