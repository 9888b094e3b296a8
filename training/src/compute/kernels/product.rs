//! Matrix products that the tensor library does not offer: onto an existing matrix, scaled, and from bf16 to f32.

use std::ffi::c_void;

use candle_core::cuda_backend::cudarc::cublas::result::gemm_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType,
};
use candle_core::{DType, Tensor};

use super::Kernels;
use super::launch::address;
use crate::{Error, Result};

impl Kernels {
    /// `factor a b`, `[m, k] [k, n]` in bf16 to a matrix of `dtype` (bf16 or f32). Either may be a transposed view.
    pub(crate) fn product(&self, a: &Tensor, b: &Tensor, factor: f64, dtype: DType) -> Result<Tensor> {
        let y = self.room((a.dim(0)?, b.dim(1)?), dtype)?;
        self.multiply(&y, a, b, factor, 0.0)?;
        Ok(y)
    }

    /// Writes `a b` over `y`.
    pub(crate) fn product_into(&self, y: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
        self.multiply(y, a, b, 1.0, 0.0)
    }

    /// Adds `a b` to `y` in its place; nothing else may hold `y`'s storage.
    pub(crate) fn add_product(&self, y: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
        self.multiply(y, a, b, 1.0, 1.0)
    }

    fn multiply(&self, y: &Tensor, a: &Tensor, b: &Tensor, alpha: f64, beta: f64) -> Result<()> {
        let ((m, k), (inner, n)) = (a.dims2()?, b.dims2()?);
        let format = match y.dtype() {
            DType::F32 => cudaDataType::CUDA_R_32F,
            _ => cudaDataType::CUDA_R_16BF,
        };
        if inner != k
            || y.dims2()? != (m, n)
            || !y.is_contiguous()
            || a.dtype() != DType::BF16
            || b.dtype() != DType::BF16
        {
            return Err(Error::config(format!(
                "no product of {:?} {:?} and {:?} {:?} into {:?}",
                a.shape(),
                a.dtype(),
                b.shape(),
                b.dtype(),
                y.shape()
            )));
        }
        let (of_a, of_b) = (Operand::of(a)?, Operand::of(b)?);
        let (alpha, beta) = (alpha as f32, beta as f32);
        let blas = self.device.cublas_handle();
        // cuBLAS counts columns first: what it sees of row-major matrices are their transposes, hence bᵀ aᵀ.
        // SAFETY: addresses, shapes and strides are those of tensors that outlive the call on the device's one stream, and
        // the two factors are read before it returns.
        unsafe {
            gemm_ex(
                *blas.handle(),
                of_b.operation,
                of_a.operation,
                n as i32,
                m as i32,
                k as i32,
                (&raw const alpha).cast(),
                of_b.address as *const c_void,
                cudaDataType::CUDA_R_16BF,
                of_b.stride,
                of_a.address as *const c_void,
                cudaDataType::CUDA_R_16BF,
                of_a.stride,
                (&raw const beta).cast(),
                address(y)? as *mut c_void,
                format,
                n as i32,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|error| Error::from(candle_core::Error::wrap(error)))
    }
}

/// A matrix as cuBLAS wants it told.
struct Operand {
    address: u64,
    /// Values from one row to the next, of the matrix as it is stored.
    stride: i32,
    operation: cublasOperation_t,
}

impl Operand {
    fn of(x: &Tensor) -> Result<Self> {
        let ((rows, columns), strides) = (x.dims2()?, x.stride());
        let (stride, operation) = match (strides[0], strides[1]) {
            (row, 1) if row >= columns || rows == 1 => (row.max(columns), cublasOperation_t::CUBLAS_OP_N),
            (1, column) => (column.max(rows), cublasOperation_t::CUBLAS_OP_T),
            other => return Err(Error::config(format!("no product with a matrix of strides {other:?}"))),
        };
        Ok(Self { address: address(x)?, stride: stride as i32, operation })
    }
}
