// Attention of one new token a sequence over its cache, appended to tensors.cu; HEAD_DIM and GROUP (query heads that share
// one key head) are given when it is compiled. One block takes one key head of one sequence, or a slice of its keys where
// there are few sequences, and reads each key and value once for the whole group. A key is spread over HEAD_DIM / 8 lanes, so
// that a lane's share is one load.

constexpr int LANES = HEAD_DIM / 8, AT_ONCE = 32 / LANES, WARPS = 8, AHEAD = 4;

// Keys and values of one new token a sequence, [sequences, kv_heads, HEAD_DIM], to their places in the caches
// [slots, kv_heads, capacity, HEAD_DIM].
extern "C" __global__ void store_tokens(const bf16 *k, const bf16 *v, bf16 *keys, bf16 *values,
                                        const unsigned *positions, long long eights, int kv_heads, long long capacity) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= eights) return;
    long long row = item / LANES, to = (row * capacity + positions[row / kv_heads]) * LANES + item % LANES;
    reinterpret_cast<Eight<bf16> *>(keys)[to] = eight(k, item);
    reinterpret_cast<Eight<bf16> *>(values)[to] = eight(v, item);
}

// What some keys say to one query head: weights counted from their largest score, in powers of 2.
struct State {
    float largest, sum, out[8];
};

__device__ __forceinline__ void join(State &a, float largest, float sum, const float *out) {
    float now = fmaxf(a.largest, largest);
    float of_a = a.largest == -INFINITY ? 0.f : exp2f(a.largest - now);
    float of_b = largest == -INFINITY ? 0.f : exp2f(largest - now);
    a.largest = now;
    a.sum = a.sum * of_a + sum * of_b;
#pragma unroll
    for (int i = 0; i < 8; i++) a.out[i] = a.out[i] * of_a + out[i] * of_b;
}

// q and out are [sequences, kv_heads * GROUP, HEAD_DIM]; sequence i has keys 0 to positions[i]. Where there are several slices
// of `share` keys, what each says goes into parts, [sequences, kv_heads, slices, GROUP, HEAD_DIM + 2]: weighted values, the
// largest score and the sum of weights.
extern "C" __global__ void __launch_bounds__(WARPS * 32)
    decode_attention(const bf16 *q, const bf16 *keys, const bf16 *values, const unsigned *positions, bf16 *out,
                     float *parts, int kv_heads, long long capacity, int share, float scale) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, part = lane % LANES, which = lane / LANES;
    long long row = blockIdx.x;
    int start = blockIdx.y * share, length = min((int)positions[row / kv_heads] + 1, start + share);
    const bf16 *k = keys + row * capacity * HEAD_DIM, *v = values + row * capacity * HEAD_DIM;
    float query[GROUP][8];
    State state[GROUP];
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
        Eight<bf16> x = eight(q, (row * GROUP + g) * LANES + part);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            query[g][i] = wide(x.of[i]) * scale * 1.4426950408889634f;
            state[g].out[i] = 0.f;
        }
        state[g].largest = -INFINITY;
        state[g].sum = 0.f;
    }
    for (int first = start + warp * AT_ONCE; first < length; first += WARPS * AT_ONCE * AHEAD) {
        Eight<bf16> key[AHEAD], value[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            // Keys beyond the end of the slice are read as its last one and get no weight.
            long long at = min(first + a * WARPS * AT_ONCE + which, length - 1);
            key[a] = eight(k, at * LANES + part);
            value[a] = eight(v, at * LANES + part);
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            float score[AHEAD], largest = state[g].largest;
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
                float sum = 0.f;
#pragma unroll
                for (int i = 0; i < 8; i++) sum += query[g][i] * wide(key[a].of[i]);
#pragma unroll
                for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
                score[a] = first + a * WARPS * AT_ONCE + which < length ? sum : -INFINITY;
                largest = fmaxf(largest, score[a]);
            }
            // Before the first key there is no largest score to count from.
            float base = largest == -INFINITY ? 0.f : largest, shrink = exp2f(state[g].largest - base);
            state[g].largest = largest;
            state[g].sum *= shrink;
#pragma unroll
            for (int i = 0; i < 8; i++) state[g].out[i] *= shrink;
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
                float weight = exp2f(score[a] - base);
                state[g].sum += weight;
#pragma unroll
                for (int i = 0; i < 8; i++) state[g].out[i] += weight * wide(value[a].of[i]);
            }
        }
    }
    // First over the keys of a warp, then over warps.
    __shared__ float largest_of[WARPS][GROUP], sum_of[WARPS][GROUP];
    __shared__ float out_of[WARPS][GROUP][HEAD_DIM];
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
#pragma unroll
        for (int step = LANES; step < 32; step *= 2) {
            float other[8];
            float largest = __shfl_xor_sync(~0u, state[g].largest, step), sum = __shfl_xor_sync(~0u, state[g].sum, step);
#pragma unroll
            for (int i = 0; i < 8; i++) other[i] = __shfl_xor_sync(~0u, state[g].out[i], step);
            join(state[g], largest, sum, other);
        }
        if (which == 0) {
#pragma unroll
            for (int i = 0; i < 8; i++) out_of[warp][g][part * 8 + i] = state[g].out[i];
            if (part == 0) {
                largest_of[warp][g] = state[g].largest;
                sum_of[warp][g] = state[g].sum;
            }
        }
    }
    __syncthreads();
    for (int item = threadIdx.x; item < GROUP * LANES; item += WARPS * 32) {
        int g = item / LANES, from = item % LANES * 8;
        State all = {largest_of[0][g], sum_of[0][g], {}};
#pragma unroll
        for (int i = 0; i < 8; i++) all.out[i] = out_of[0][g][from + i];
        for (int w = 1; w < WARPS; w++) join(all, largest_of[w][g], sum_of[w][g], &out_of[w][g][from]);
        if (gridDim.y > 1) {
            float *to = parts + ((row * gridDim.y + blockIdx.y) * GROUP + g) * (HEAD_DIM + 2);
#pragma unroll
            for (int i = 0; i < 8; i++) to[from + i] = all.out[i];
            if (from == 0) {
                to[HEAD_DIM] = all.largest;
                to[HEAD_DIM + 1] = all.sum;
            }
            continue;
        }
        float result[8];
#pragma unroll
        for (int i = 0; i < 8; i++) result[i] = all.out[i] / all.sum;
        put_eight(out, (row * GROUP + g) * LANES + item % LANES, result);
    }
}

// What all slices say together; one thread eight values of `eights`. The first slice has a key, so the sum is above 0.
extern "C" __global__ void join_slices(const float *parts, bf16 *out, int slices, long long eights) {
    long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= eights) return;
    long long head = item / LANES, row = head / GROUP;
    const float *part = parts + (row * slices * GROUP + head % GROUP) * (HEAD_DIM + 2);
    int from = item % LANES * 8;
    State all = {-INFINITY, 0.f, {}};
    for (int s = 0; s < slices; s++, part += GROUP * (HEAD_DIM + 2))
        join(all, part[HEAD_DIM], part[HEAD_DIM + 1], part + from);
    float result[8];
#pragma unroll
    for (int i = 0; i < 8; i++) result[i] = all.out[i] / all.sum;
    put_eight(out, item, result);
}
