//! How messages become bytes: as protobuf, with buffers that begin small.
//!
//! The usual codec sets aside 8 KiB for every call. A registry has a stream open to every agent, nearly always idle:
//! there the buffers would be most of what an agent costs.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Bytes set aside at first; larger messages make a buffer grow.
const FIRST: usize = 256;
/// Bytes of messages that are ready together, beyond which they are sent.
const TOGETHER: usize = 32 * 1024;

/// Protobuf for `T` out and `U` in.
#[derive(Clone, Debug)]
pub struct SmallCodec<T, U> {
    of: PhantomData<fn(T) -> U>,
}

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self { of: PhantomData }
    }
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(FIRST, TOGETHER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(FIRST, TOGETHER))
    }
}
