//! Reads of tensors to the host that are requested at once and awaited later, in any thread.

use burn::tensor::{Tensor, TensorData};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

type Data = Result<TensorData, String>;

/// A requested read of one tensor.
pub(super) enum Read {
    Ready(Data),
    Pending(Pin<Box<dyn Future<Output = Data> + Send>>),
}

impl Read {
    /// Requests the read in this thread's stream. Operations that this thread queues later do not delay it.
    pub(super) fn request<const D: usize>(tensor: Tensor<D>) -> Self {
        let tensor = tensor.without_autodiff();
        let mut read =
            Box::pin(
                async move { tensor.into_data_async().await.map_err(|error| error.to_string()) },
            );
        // Burn requests the read when its future is first polled.
        match read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(data) => Self::Ready(data),
            Poll::Pending => Self::Pending(read),
        }
    }

    /// Waits for the data.
    pub(super) fn wait(self) -> Data {
        match self {
            Self::Ready(data) => data,
            Self::Pending(read) => block_on(read),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on(mut read: Pin<Box<dyn Future<Output = Data> + Send>>) -> Data {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match read.as_mut().poll(&mut context) {
            Poll::Ready(data) => return data,
            Poll::Pending => std::thread::park(),
        }
    }
}
