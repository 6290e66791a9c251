//! candle's own `BertModel`, as another program would use it: batches come in on standard input, logits go out.
//!
//!     CANDLE_NUM_THREADS=1 RAYON_NUM_THREADS=1 candle-peer BUNDLE mean|cls TASK...
//!
//! A batch is its two sizes as u32, documents and tokens of each, then its ids and its mask (1 at tokens, 0 at padding),
//! both `[documents, tokens]` as i64; the answer is `[documents, labels]` as f32, the labels of all tasks in the order of
//! the command line. All little-endian.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use candle_core::{D, DType, Device, Tensor, safetensors};
use candle_nn::{Linear, Module, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let usage = "candle-peer BUNDLE mean|cls TASK...";
    let bundle = arguments.next().ok_or(usage)?;
    let mean = match arguments.next().as_deref() {
        Some("mean") => true,
        Some("cls") => false,
        _ => return Err(usage.into()),
    };
    let model = Classifier::load(Path::new(&bundle), mean, arguments.collect())?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    while let Some([documents, tokens]) = sizes(&mut input)? {
        let ids = matrix(&mut input, documents, tokens)?;
        let mask = matrix(&mut input, documents, tokens)?;
        let logits = model.forward(&ids, &mask)?;
        for logit in logits.flatten_all()?.to_vec1::<f32>()? {
            output.write_all(&logit.to_le_bytes())?;
        }
        output.flush()?;
    }
    Ok(())
}

/// Documents and tokens of the next batch; nothing after the last.
fn sizes(input: &mut impl Read) -> Result<Option<[usize; 2]>, Failure> {
    let mut bytes = [0; 8];
    match input.read_exact(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [a, b, c, d, e, f, g, h] = bytes;
    Ok(Some([[a, b, c, d], [e, f, g, h]].map(|size| u32::from_le_bytes(size) as usize)))
}

fn matrix(input: &mut impl Read, documents: usize, tokens: usize) -> Result<Tensor, Failure> {
    let mut bytes = vec![0; documents * tokens * 8];
    input.read_exact(&mut bytes)?;
    let values = bytes.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value) as u32);
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((documents, tokens))?)
}

struct Classifier {
    bert: BertModel,
    heads: Linear,
    /// The heads read the mean over all tokens; if not, the first token.
    mean: bool,
}

impl Classifier {
    fn load(bundle: &Path, mean: bool, tasks: Vec<String>) -> Result<Self, Failure> {
        let config: Config =
            serde_json::from_str(&std::fs::read_to_string(bundle.join("config.json"))?)?;
        let tensors = safetensors::load(bundle.join("model.safetensors"), &Device::Cpu)?;
        let of_heads = |kind: &str| -> candle_core::Result<Tensor> {
            let name = |task| format!("heads.{task}.{kind}");
            let parts = tasks.iter().map(|task| tensors[&name(task)].to_dtype(DType::F32));
            Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)
        };
        let heads = Linear::new(of_heads("weight")?, Some(of_heads("bias")?));
        let bert =
            BertModel::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config)?;
        Ok(Self { bert, heads, mean })
    }

    /// Logits `[documents, labels]` of ids and mask, both `[documents, tokens]`.
    fn forward(&self, ids: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let states = self.bert.forward(ids, &ids.zeros_like()?, Some(mask))?;
        if !self.mean {
            return self.heads.forward(&states.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?);
        }
        let weights = mask.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
        let sums = states.broadcast_mul(&weights)?.sum(1)?;
        self.heads.forward(&sums.broadcast_div(&weights.sum(1)?)?)
    }
}
