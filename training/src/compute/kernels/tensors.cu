// The fused operations of a training step: RMSNorm, rotary positions, the gated activation, what the loss needs of the
// logits, AdamW. Half precision is read and written, every sum is f32. Compiled at run time, so no header is included.

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

struct __align__(2) bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __uint_as_float(((unsigned)x.bits) << 16); }
__device__ __forceinline__ void put(float &to, float x) { to = x; }
__device__ __forceinline__ void put(bf16 &to, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }

// Eight values: one load of 16 bytes in half precision, two in f32.
template <class T> struct __align__(16) Eight {
    T of[8];
};

template <class T> __device__ __forceinline__ Eight<T> eight(const T *from, long long at) {
    return reinterpret_cast<const Eight<T> *>(from)[at];
}

template <class T> __device__ __forceinline__ void put_eight(T *to, long long at, const float *values) {
    Eight<T> packed;
#pragma unroll
    for (int i = 0; i < 8; i++) put(packed.of[i], values[i]);
    reinterpret_cast<Eight<T> *>(to)[at] = packed;
}

// The sum over a block; every thread gets it. Blocks have at most 1024 threads and whole warps.
__device__ float block_sum(float x) {
    __shared__ float of_warps[33];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x < 32) {
        x = threadIdx.x < blockDim.x / 32 ? of_warps[threadIdx.x] : 0.f;
#pragma unroll
        for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
        if (threadIdx.x == 0) of_warps[32] = x;
    }
    __syncthreads();
    return of_warps[32];
}

// One block a row. `width` is a multiple of 8.
template <class T> __device__ float inverse_rms(const T *row, int width, float epsilon) {
    float squares = 0.f;
    for (int at = threadIdx.x; at < width / 8; at += blockDim.x) {
        Eight<T> x = eight(row, at);
#pragma unroll
        for (int i = 0; i < 8; i++) squares += wide(x.of[i]) * wide(x.of[i]);
    }
    return rsqrtf(block_sum(squares) / width + epsilon);
}

template <class T> __device__ void rms_norm(const T *x, const float *weight, T *y, int width, float epsilon) {
    const T *row = x + (long long)blockIdx.x * width;
    float inverse = inverse_rms(row, width, epsilon);
    for (int at = threadIdx.x; at < width / 8; at += blockDim.x) {
        Eight<T> values = eight(row, at);
        float result[8];
#pragma unroll
        for (int i = 0; i < 8; i++) result[i] = wide(values.of[i]) * inverse * weight[at * 8 + i];
        put_eight(y + (long long)blockIdx.x * width, at, result);
    }
}

// dx = (w dy - n mean(w dy n)) / rms with n = x / rms; `inverses` takes 1 / rms of each row.
template <class T>
__device__ void rms_norm_backward(const T *x, const T *dy, const float *weight, T *dx, float *inverses, int width,
                                  float epsilon) {
    long long start = (long long)blockIdx.x * width;
    float inverse = inverse_rms(x + start, width, epsilon), along = 0.f;
    for (int at = threadIdx.x; at < width / 8; at += blockDim.x) {
        Eight<T> of_x = eight(x + start, at), of_dy = eight(dy + start, at);
#pragma unroll
        for (int i = 0; i < 8; i++) along += wide(of_x.of[i]) * wide(of_dy.of[i]) * weight[at * 8 + i];
    }
    along = block_sum(along) * inverse / width;
    for (int at = threadIdx.x; at < width / 8; at += blockDim.x) {
        Eight<T> of_x = eight(x + start, at), of_dy = eight(dy + start, at);
        float result[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            result[i] = (weight[at * 8 + i] * wide(of_dy.of[i]) - wide(of_x.of[i]) * inverse * along) * inverse;
        put_eight(dx + start, at, result);
    }
    if (threadIdx.x == 0) inverses[blockIdx.x] = inverse;
}

// Sums over runs of rows of dy, or of dy x scale[row] where x is given: one run a block row, for a second sum over runs.
template <class T>
__device__ void column_sums(const T *dy, const T *x, const float *scales, float *partial, int rows, int width, int run) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    int first = blockIdx.y * run, last = min(rows, first + run);
    float sum = 0.f;
    for (int row = first; row < last; row++) {
        long long at = (long long)row * width + column;
        sum += x == nullptr ? wide(dy[at]) : wide(dy[at]) * wide(x[at]) * scales[row];
    }
    partial[(long long)blockIdx.y * width + column] = sum;
}

template <class T> __device__ void add_bias(T *y, const T *bias, long long eights, int width) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= eights) return;
    Eight<T> values = eight(y, at), of_bias = eight(bias, at % (width / 8));
    float result[8];
#pragma unroll
    for (int i = 0; i < 8; i++) result[i] = wide(values.of[i]) + wide(of_bias.of[i]);
    put_eight(y, at, result);
}

// x and y are [tokens, heads, 2 half], cos and sin [tokens, half]; `sign` is -1 to turn back. A thread takes 8 pairs.
template <class T>
__device__ void rotary(const T *x, const float *cos, const float *sin, T *y, long long items, int heads, int half,
                       float sign) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= items) return;
    int runs = half / 8, run = item % runs;
    long long head = item / runs, token = head / heads;
    Eight<T> a = eight(x + head * 2 * half, run), b = eight(x + head * 2 * half + half, run);
    Eight<float> c = eight(cos + token * half, run), s = eight(sin + token * half, run);
    float left[8], right[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        left[i] = wide(a.of[i]) * c.of[i] - wide(b.of[i]) * s.of[i] * sign;
        right[i] = wide(b.of[i]) * c.of[i] + wide(a.of[i]) * s.of[i] * sign;
    }
    put_eight(y + head * 2 * half, run, left);
    put_eight(y + head * 2 * half + half, run, right);
}

template <class T> __device__ void gated(const T *gate, const T *up, T *y, long long eights) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= eights) return;
    Eight<T> g = eight(gate, at), u = eight(up, at);
    float result[8];
#pragma unroll
    for (int i = 0; i < 8; i++) result[i] = wide(g.of[i]) / (1.f + __expf(-wide(g.of[i]))) * wide(u.of[i]);
    put_eight(y, at, result);
}

// The derivative of silu(g) = g s(g) is s + silu (1 - s), with s the logistic function.
template <class T>
__device__ void gated_backward(const T *gate, const T *up, const T *dy, T *d_gate, T *d_up, long long eights) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= eights) return;
    Eight<T> g = eight(gate, at), u = eight(up, at), d = eight(dy, at);
    float of_gate[8], of_up[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float s = 1.f / (1.f + __expf(-wide(g.of[i]))), silu = wide(g.of[i]) * s, slope = s + silu * (1.f - s);
        of_up[i] = wide(d.of[i]) * silu;
        of_gate[i] = wide(d.of[i]) * wide(u.of[i]) * slope;
    }
    put_eight(d_gate, at, of_gate);
    put_eight(d_up, at, of_up);
}

// Sums over the `group` heads that share a key head; a thread takes 8 values of the sum, of `runs` in a head.
template <class T> __device__ void sum_groups(const T *x, T *y, long long eights, int runs, int group) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= eights) return;
    long long head = at / runs, run = at % runs;
    float sum[8] = {};
    for (int member = 0; member < group; member++) {
        Eight<T> values = eight(x, (head * group + member) * runs + run);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += wide(values.of[i]);
    }
    put_eight(y, at, sum);
}

// The sum of squares of the values that a block goes through, one sum a block.
template <class T> __device__ void squares(const T *x, float *sums, long long eights) {
    float sum = 0.f;
    for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < eights;
         at += (long long)gridDim.x * blockDim.x) {
        Eight<T> values = eight(x, at);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += wide(values.of[i]) * wide(values.of[i]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

#define KERNELS(NAME, T)                                                                                               \
    extern "C" __global__ void rms_norm_##NAME(const T *x, const float *w, T *y, int width, float epsilon) {           \
        rms_norm(x, w, y, width, epsilon);                                                                             \
    }                                                                                                                  \
    extern "C" __global__ void rms_norm_backward_##NAME(const T *x, const T *dy, const float *w, T *dx,                \
                                                        float *inverses, int width, float epsilon) {                   \
        rms_norm_backward(x, dy, w, dx, inverses, width, epsilon);                                                     \
    }                                                                                                                  \
    extern "C" __global__ void column_sums_##NAME(const T *dy, const T *x, const float *scales, float *partial,        \
                                                  int rows, int width, int run) {                                      \
        column_sums(dy, x, scales, partial, rows, width, run);                                                         \
    }                                                                                                                  \
    extern "C" __global__ void add_bias_##NAME(T *y, const T *bias, long long eights, int width) {                     \
        add_bias(y, bias, eights, width);                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void rotary_##NAME(const T *x, const float *cos, const float *sin, T *y, long long items,    \
                                             int heads, int half, float sign) {                                        \
        rotary(x, cos, sin, y, items, heads, half, sign);                                                              \
    }                                                                                                                  \
    extern "C" __global__ void sum_groups_##NAME(const T *x, T *y, long long eights, int runs, int group) {            \
        sum_groups(x, y, eights, runs, group);                                                                         \
    }                                                                                                                  \
    extern "C" __global__ void squares_##NAME(const T *x, float *sums, long long eights) { squares(x, sums, eights); } \
    extern "C" __global__ void gated_##NAME(const T *gate, const T *up, T *y, long long eights) {                      \
        gated(gate, up, y, eights);                                                                                    \
    }                                                                                                                  \
    extern "C" __global__ void gated_backward_##NAME(const T *gate, const T *up, const T *dy, T *d_gate, T *d_up,      \
                                                     long long eights) {                                               \
        gated_backward(gate, up, dy, d_gate, d_up, eights);                                                            \
    }

KERNELS(bf16, bf16)
KERNELS(f32, float)

// One AdamW update; `master` is the parameter in f32 where it is kept in half precision. The roundings are those of the
// CPU's fused pass, in its order.
template <class T, class G>
__device__ void adamw(T *parameter, float *master, float *m, float *v, const G *gradient, long long eights, float clip,
                      float beta1, float rest1, float beta2, float rest2, float keep, float step, float root,
                      float eps) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= eights) return;
    Eight<G> of_gradient = eight(gradient, at);
    Eight<float> of_m = eight(m, at), of_v = eight(v, at);
    float now[8];
    if (master == nullptr) {
        Eight<T> of_parameter = eight(parameter, at);
#pragma unroll
        for (int i = 0; i < 8; i++) now[i] = wide(of_parameter.of[i]);
    } else {
        Eight<float> of_master = eight(master, at);
#pragma unroll
        for (int i = 0; i < 8; i++) now[i] = of_master.of[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float g = wide(of_gradient.of[i]) * clip;
        of_m.of[i] = of_m.of[i] * beta1 + g * rest1;
        of_v.of[i] = of_v.of[i] * beta2 + g * g * rest2;
        now[i] = now[i] * keep - of_m.of[i] / (sqrtf(of_v.of[i]) * root + eps) * step;
    }
    put_eight(m, at, of_m.of);
    put_eight(v, at, of_v.of);
    if (master != nullptr) put_eight(master, at, now);
    put_eight(parameter, at, now);
}

#define ADAMW(NAME, T, G)                                                                                              \
    extern "C" __global__ void adamw_##NAME(T *parameter, float *master, float *m, float *v, const G *gradient,        \
                                            long long eights, float clip, float beta1, float rest1, float beta2,        \
                                            float rest2, float keep, float step, float root, float eps) {              \
        adamw(parameter, master, m, v, gradient, eights, clip, beta1, rest1, beta2, rest2, keep, step, root, eps);      \
    }

ADAMW(bf16_bf16, bf16, bf16)
ADAMW(bf16_f32, bf16, float)
ADAMW(f32_bf16, float, bf16)
ADAMW(f32_f32, float, float)
