//! The weights on disk: one safetensors file, or several with an index, mapped
//! into memory and checked before anything is read from them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::BundleError;
use super::files::{open, read_json};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// A safetensors file starts with the length of its header, a `u64`.
const HEADER_LENGTH_BYTES: usize = 8;
const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// The tensors of a model, by name. Nothing is copied until it is asked for.
///
/// The files must not be changed while this exists: they are mapped, not read.
#[derive(Debug)]
pub struct Weights {
    files: Vec<WeightsFile>,
    tensors: BTreeMap<String, Location>,
    listing: PathBuf,
}

#[derive(Debug)]
struct WeightsFile {
    path: PathBuf,
    bytes: Mmap,
}

#[derive(Debug)]
struct Location {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Maps the weights in `directory`: `model.safetensors`, or else the files
    /// that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// If there are none, or one is truncated or corrupt, or lacks a tensor that
    /// the index places in it.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        let single = directory.join(SINGLE_FILE);
        let index = directory.join(INDEX_FILE);
        if single.exists() {
            let mut weights = Self { files: vec![], tensors: BTreeMap::new(), listing: single };
            let path = weights.listing.clone();
            weights.tensors = weights.map_file(path)?;
            Ok(weights)
        } else if index.exists() {
            Self::open_shards(directory, index)
        } else {
            Err(missing(directory))
        }
    }

    fn open_shards(directory: &Path, listing: PathBuf) -> Result<Self, BundleError> {
        let index: Index = read_json(&listing)?;
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            shards.entry(file).or_default().push(tensor);
        }
        let mut weights = Self { files: vec![], tensors: BTreeMap::new(), listing };
        for (file, tensors) in shards {
            // A name with a separator would reach outside the directory.
            if Path::new(file).file_name() != Some(file.as_ref()) {
                return Err(BundleError::Invalid {
                    file: weights.listing,
                    key: "weight_map".into(),
                    expected: "names of files in the same directory".into(),
                    found: format!("{file:?}"),
                });
            }
            let path = directory.join(file);
            let mut found = weights.map_file(path.clone())?;
            for tensor in tensors {
                let Some(location) = found.remove(tensor) else {
                    return Err(BundleError::Tensor {
                        file: path,
                        key: tensor.to_owned(),
                        expected: format!("it here, since {INDEX_FILE} says so"),
                        found: "no such tensor".into(),
                    });
                };
                weights.tensors.insert(tensor.to_owned(), location);
            }
        }
        Ok(weights)
    }

    /// Maps one file and lists its tensors; their bytes are inside of it.
    fn map_file(&mut self, path: PathBuf) -> Result<BTreeMap<String, Location>, BundleError> {
        let bytes = match map(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(BundleError::Read { file: path, source }),
        };
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(BundleError::Invalid {
                file: path,
                key: "contents".into(),
                expected: "weights".into(),
                found: "a Git LFS pointer; `git lfs pull` fetches what it points to".into(),
            });
        }
        let (header, metadata) = match SafeTensors::read_metadata(&bytes) {
            Ok(header) => header,
            Err(source) => return Err(BundleError::Safetensors { file: path, source }),
        };
        let start = HEADER_LENGTH_BYTES + header;
        let file = self.files.len();
        let tensors = metadata.tensors().into_iter().map(|(name, info)| {
            let (first, end) = info.data_offsets;
            let bytes = start + first..start + end;
            let location = Location { file, dtype: info.dtype, shape: info.shape.clone(), bytes };
            (name, location)
        });
        let tensors = tensors.collect();
        self.files.push(WeightsFile { path, bytes });
        Ok(tensors)
    }

    /// What the names of the encoder's tensors start with: nothing, `bert.`, `roberta.` or `electra.`.
    ///
    /// # Errors
    /// [`BundleError::Tensor`] if no such name leads to token embeddings.
    pub fn encoder_prefix(&self) -> Result<&'static str, BundleError> {
        let prefixes = ["", "bert.", "roberta.", "electra."];
        let found = prefixes
            .into_iter()
            .find(|prefix| self.tensors.contains_key(&format!("{prefix}{WORD_EMBEDDINGS}")));
        found.ok_or_else(|| BundleError::Tensor {
            file: self.listing.clone(),
            key: WORD_EMBEDDINGS.into(),
            expected: "it, alone or after `bert.`, `roberta.` or `electra.`".into(),
            found: "no such tensor".into(),
        })
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|location| location.shape.as_slice())
    }

    /// Checks that a tensor is there, of this shape and of a type that can be read.
    ///
    /// # Errors
    /// [`BundleError::Tensor`].
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), BundleError> {
        self.find(name, shape).map(|_| ())
    }

    /// The values of a tensor of this shape, row-major, converted to f32.
    ///
    /// # Errors
    /// [`BundleError::Tensor`] if it is missing, or has another shape or a type
    /// other than F32, F16 and BF16.
    pub fn to_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, BundleError> {
        let (location, file) = self.find(name, shape)?;
        // Never empty: the header was checked against the length of the file.
        let bytes = file.bytes.get(location.bytes.clone()).unwrap_or_default();
        let (pairs, quads) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0);
        Ok(match location.dtype {
            Dtype::F16 => pairs.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => pairs.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            _ => quads.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        })
    }

    /// SHA-256 of the files, one after the other in the order of their names, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update(&file.bytes);
        }
        hexadecimal(&hash.finalize())
    }

    /// Checks that no value is NaN or infinite. One that is may spoil the answers of a few
    /// documents only, so running the model does not find it.
    ///
    /// # Errors
    /// [`BundleError::Tensor`], naming the first such tensor.
    pub fn check_finite(&self) -> Result<(), BundleError> {
        for (name, location) in &self.tensors {
            let Some(file) = self.files.get(location.file) else { continue };
            let bytes = file.bytes.get(location.bytes.clone()).unwrap_or_default();
            if let Some(index) = first_not_finite(bytes, location.dtype) {
                return Err(BundleError::Tensor {
                    file: file.path.clone(),
                    key: name.clone(),
                    expected: "finite values".into(),
                    found: format!("NaN or infinity at index {index}"),
                });
            }
        }
        Ok(())
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&Location, &WeightsFile), BundleError> {
        let refuse = |file: &Path, found: String| {
            Err(BundleError::Tensor {
                file: file.to_owned(),
                key: name.to_owned(),
                expected: format!("{shape:?} of F32, F16 or BF16"),
                found,
            })
        };
        let located = self
            .tensors
            .get(name)
            .and_then(|location| self.files.get(location.file).map(|file| (location, file)));
        let Some((location, file)) = located else {
            return refuse(&self.listing, "no such tensor".into());
        };
        let readable = matches!(location.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        if location.shape != shape || !readable {
            return refuse(&file.path, format!("{:?} of {:?}", location.shape, location.dtype));
        }
        Ok((location, file))
    }
}

/// The index of the first value that is NaN or infinite: its exponent has all bits set. Types that
/// [`Weights::to_f32`] does not read are not looked at.
fn first_not_finite(bytes: &[u8], dtype: Dtype) -> Option<usize> {
    let halves = |exponent: u16| {
        let special = |value: &[u8; 2]| u16::from_le_bytes(*value) & exponent == exponent;
        bytes.as_chunks::<2>().0.iter().position(special)
    };
    match dtype {
        Dtype::F16 => halves(0x7c00),
        Dtype::BF16 => halves(0x7f80),
        Dtype::F32 => {
            let special = |value: &[u8; 4]| !f32::from_le_bytes(*value).is_finite();
            bytes.as_chunks::<4>().0.iter().position(special)
        }
        _ => None,
    }
}

/// `bytes`, two lower-case digits each.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = open(path)?;
    // SAFETY: the mapping is read-only and private to us. What cannot be checked
    // is that no other process truncates the file meanwhile; as with every mapped
    // model, the file has to be replaced by renaming a new one over it.
    #[allow(unsafe_code)]
    unsafe {
        Mmap::map(&file)
    }
}

fn missing(directory: &Path) -> BundleError {
    let legacy = ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5"];
    let hint = if legacy.iter().any(|name| directory.join(name).exists()) {
        ". There are weights in another format (PyTorch's unpickle code from the file, so it is not \
         read): load them in Python and call `model.save_pretrained(path, safe_serialization=True)`"
    } else {
        ""
    };
    BundleError::Missing {
        directory: directory.to_owned(),
        expected: "model.safetensors or model.safetensors.index.json",
        hint,
    }
}
