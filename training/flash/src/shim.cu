// The way from Rust to FlashAttention's kernels: what flash_api.cpp does for PyTorch's tensors (set_params_fprop,
// set_params_dgrad, mha_varlen_fwd, mha_varlen_bwd), for raw pointers. Causal, bf16, packed sequences whose queries and
// keys are the same tokens. `Shape` is `Sizes` in kernels.rs; `Forward` and `Backward` are those of lib.rs.

#include <cmath>
#include <cstdint>

#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>
#include <cutlass/numeric_types.h>

#include "flash.h"

namespace brevity_flash {

struct Shape {
    int32_t tokens;
    int32_t sequences;
    int32_t longest;
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
};

struct Forward {
    uint64_t q;
    uint64_t k;
    uint64_t v;
    uint64_t out;
    uint64_t log_sums;
    uint64_t offsets;
};

struct Backward {
    uint64_t q;
    uint64_t k;
    uint64_t v;
    uint64_t out;
    uint64_t d_out;
    uint64_t log_sums;
    uint64_t offsets;
    uint64_t dq;
    uint64_t dk;
    uint64_t dv;
    uint64_t dq_sums;
    uint64_t d_softmax;
};

template <typename T = void>
T *pointer(uint64_t address) {
    return reinterpret_cast<T *>(address);
}

int round_up_to_128(int length) {
    return (length + 127) / 128 * 128;
}

// What the kernels' own code checks too, but by ending the process.
void check_device() {
    cudaGetLastError();  // an earlier failure of somebody else is not reported as ours
    int device = 0;
    int major = 0;
    check(cudaGetDevice(&device));
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    if (major < 8) {
        throw Failure{cudaErrorNoKernelImageForDevice};
    }
}

// The fields that both passes read. `params` comes with every field zero: what is not used (dropout, softcap, ALiBi,
// paged or left-padded keys, a separate count of keys, split sequences) is off at zero.
void set_common(Flash_fwd_params &params, const Shape &shape, float scale) {
    const int64_t heads = shape.heads;
    const int64_t kv_heads = shape.kv_heads;
    const int64_t head_dim = shape.head_dim;

    params.is_bf16 = true;
    params.q_row_stride = heads * head_dim;
    params.k_row_stride = kv_heads * head_dim;
    params.v_row_stride = kv_heads * head_dim;
    params.o_row_stride = heads * head_dim;
    params.q_head_stride = head_dim;
    params.k_head_stride = head_dim;
    params.v_head_stride = head_dim;
    params.o_head_stride = head_dim;

    params.b = shape.sequences;
    params.h = shape.heads;
    params.h_k = shape.kv_heads;
    params.h_h_k_ratio = shape.heads / shape.kv_heads;
    params.seqlen_q = shape.longest;
    params.seqlen_k = shape.longest;
    params.seqlen_q_rounded = round_up_to_128(shape.longest);
    params.seqlen_k_rounded = round_up_to_128(shape.longest);
    params.d = shape.head_dim;
    params.d_rounded = shape.head_dim;  // 64 and 128 are multiples of 32
    params.total_q = shape.tokens;

    params.scale_softmax = scale;
    params.scale_softmax_log2 = scale * M_LOG2E;

    // No dropout: everything is kept.
    params.p_dropout = 1.f;
    params.p_dropout_in_uint8_t = 255;
    params.rp_dropout = 1.f;
    params.scale_softmax_rp_dropout = scale;

    // Causal: everything to the left, nothing to the right.
    params.is_causal = true;
    params.window_size_left = shape.longest;
    params.window_size_right = 0;

    params.is_seqlens_k_cumulative = true;
    params.unpadded_lse = true;
    params.num_splits = 1;
    params.page_block_size = 1;
}

void forward(const Shape &shape, const Forward &data, float scale, cudaStream_t stream) {
    check_device();
    Flash_fwd_params params = {};
    set_common(params, shape, scale);
    params.q_ptr = pointer(data.q);
    params.k_ptr = pointer(data.k);
    params.v_ptr = pointer(data.v);
    params.o_ptr = pointer(data.out);
    params.softmax_lse_ptr = pointer(data.log_sums);
    params.cu_seqlens_q = pointer<int>(data.offsets);
    params.cu_seqlens_k = pointer<int>(data.offsets);

    switch (shape.head_dim) {
        case 64:
            return run_mha_fwd_<cutlass::bfloat16_t, 64, true>(params, stream);
        case 128:
            return run_mha_fwd_<cutlass::bfloat16_t, 128, true>(params, stream);
        default:
            throw Failure{cudaErrorInvalidValue};
    }
}

void backward(const Shape &shape, const Backward &data, float scale, cudaStream_t stream) {
    check_device();
    Flash_bwd_params params = {};
    set_common(params, shape, scale);
    params.q_ptr = pointer(data.q);
    params.k_ptr = pointer(data.k);
    params.v_ptr = pointer(data.v);
    params.o_ptr = pointer(data.out);
    params.softmax_lse_ptr = pointer(data.log_sums);
    params.cu_seqlens_q = pointer<int>(data.offsets);
    params.cu_seqlens_k = pointer<int>(data.offsets);

    params.do_ptr = pointer(data.d_out);
    params.dq_ptr = pointer(data.dq);
    params.dk_ptr = pointer(data.dk);
    params.dv_ptr = pointer(data.dv);
    // Gradients of keys and values are per query head, so all four have the layout of the queries.
    params.do_row_stride = params.q_row_stride;
    params.dq_row_stride = params.dk_row_stride = params.dv_row_stride = params.q_row_stride;
    params.do_head_stride = params.q_head_stride;
    params.dq_head_stride = params.dk_head_stride = params.dv_head_stride = params.q_head_stride;

    params.dq_accum_ptr = pointer(data.dq_sums);
    params.dsoftmax_sum = pointer(data.d_softmax);
    params.deterministic = false;
    params.dq_accum_split_stride = 0;
    // The source reads two numbers here even without dropout and does nothing with them: any readable memory will do.
    params.rng_state = pointer<uint64_t>(data.dq_sums);

    switch (shape.head_dim) {
        case 64:
            return run_mha_bwd_<cutlass::bfloat16_t, 64, true>(params, stream);
        case 128:
            return run_mha_bwd_<cutlass::bfloat16_t, 128, true>(params, stream);
        default:
            throw Failure{cudaErrorInvalidValue};
    }
}

// 0, or what failed: CUDA's code, or -1 for an exception that is not from CUDA.
template <typename Call>
int code_of(Call call) noexcept {
    try {
        call();
        return cudaSuccess;
    } catch (const Failure &failure) {
        return failure.code;
    } catch (...) {
        return -1;
    }
}

extern "C" {

int brevity_flash_ready() {
    return code_of([] { check_device(); });
}

int brevity_flash_forward(const Shape *shape, const Forward *data, float scale, void *stream) {
    return code_of([&] { forward(*shape, *data, scale, static_cast<cudaStream_t>(stream)); });
}

int brevity_flash_backward(const Shape *shape, const Backward *data, float scale, void *stream) {
    return code_of([&] { backward(*shape, *data, scale, static_cast<cudaStream_t>(stream)); });
}

// A text that lives as long as the process.
const char *brevity_flash_said(int code) {
    return code < 0 ? "an exception in the kernels' host code" : cudaGetErrorString(static_cast<cudaError_t>(code));
}

}  // extern "C"

}  // namespace brevity_flash
