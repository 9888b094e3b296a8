// What the loss and the sampler need of f32 logits [rows, vocabulary]; one block a row, appended to tensors.cu.

// Σ exp(l - largest) and Σ exp(l - largest) l over some logits, counted from their largest.
struct Mass {
    float largest, sum, weighted;
};

__device__ __forceinline__ Mass join(Mass a, Mass b) {
    float largest = fmaxf(a.largest, b.largest);
    if (largest == -INFINITY) return a;
    float of_a = __expf(a.largest - largest), of_b = __expf(b.largest - largest);
    return {largest, a.sum * of_a + b.sum * of_b, a.weighted * of_a + b.weighted * of_b};
}

__device__ Mass block_mass(Mass mass) {
    __shared__ Mass of_warps[33];
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        mass = join(mass, {__shfl_xor_sync(~0u, mass.largest, step), __shfl_xor_sync(~0u, mass.sum, step),
                           __shfl_xor_sync(~0u, mass.weighted, step)});
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = mass;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < blockDim.x / 32; warp++) mass = join(mass, of_warps[warp]);
        of_warps[32] = mass;
    }
    __syncthreads();
    return of_warps[32];
}

__device__ Mass row_mass(const float *logits, int vocabulary, float scale) {
    Mass mass = {-INFINITY, 0.f, 0.f};
    for (int id = threadIdx.x; id < vocabulary; id += blockDim.x) {
        float logit = logits[id] * scale;
        if (logit > mass.largest) {
            float shrink = __expf(mass.largest - logit);
            mass = {logit, mass.sum * shrink, mass.weighted * shrink};
        }
        // A logit of minus infinity has no mass, and times its weight it would be no number.
        float weight = logit == -INFINITY ? 0.f : __expf(logit - mass.largest);
        mass.sum += weight;
        mass.weighted += weight == 0.f ? 0.f : weight * logit;
    }
    return block_mass(mass);
}

// Log-probability of each row's target, log Σ exp and entropy of softmax(scale logits).
extern "C" __global__ void score_rows(const float *logits, const unsigned *targets, float *logprobs, float *log_sums,
                                      float *entropies, int vocabulary, float scale) {
    const float *row = logits + (long long)blockIdx.x * vocabulary;
    Mass mass = row_mass(row, vocabulary, scale);
    if (threadIdx.x != 0) return;
    float log_sum = mass.largest + logf(mass.sum);
    logprobs[blockIdx.x] = row[targets[blockIdx.x]] * scale - log_sum;
    log_sums[blockIdx.x] = log_sum;
    entropies[blockIdx.x] = log_sum - mass.weighted / mass.sum;
}

// The gradient of the logits in half precision: coefficient (onehot - p).
extern "C" __global__ void score_rows_backward(const float *logits, const unsigned *targets, const float *log_sums,
                                               const float *coefficients, bf16 *gradient, int vocabulary, float scale) {
    long long start = (long long)blockIdx.x * vocabulary;
    float log_sum = log_sums[blockIdx.x], coefficient = coefficients[blockIdx.x];
    int target = targets[blockIdx.x];
    for (int id = threadIdx.x; id < vocabulary; id += blockDim.x) {
        float p = __expf(logits[start + id] * scale - log_sum);
        put(gradient[start + id], coefficient * ((id == target ? 1.f : 0.f) - p));
    }
}

// Draws one id a row by inversion: the first id at which the cumulated probability passes the row's uniform number.
// Tiles of blockDim.x ids are summed first, then the tile that holds the draw is gone through id by id.
extern "C" __global__ void draw_rows(const float *logits, const float *uniform, unsigned *ids, float *logprobs,
                                     int vocabulary, float scale) {
    extern __shared__ float masses[]; // one a tile, then one a thread
    const float *row = logits + (long long)blockIdx.x * vocabulary;
    Mass whole = row_mass(row, vocabulary, scale);
    int tiles = (vocabulary + blockDim.x - 1) / blockDim.x;
    for (int tile = 0; tile < tiles; tile++) {
        int id = tile * blockDim.x + threadIdx.x;
        float sum = block_sum(id < vocabulary ? __expf(row[id] * scale - whole.largest) : 0.f);
        if (threadIdx.x == 0) masses[tile] = sum;
    }
    __shared__ int chosen;
    __shared__ float left;
    if (threadIdx.x == 0) {
        // Counted against the sum of these same masses, so that rounding leaves nothing uncovered but the last sliver.
        float total = 0.f;
        for (int tile = 0; tile < tiles; tile++) total += masses[tile];
        float rest = uniform[blockIdx.x] * total;
        int tile = 0, last = 0;
        for (; tile < tiles; tile++) {
            if (masses[tile] > 0.f) last = tile;
            if (rest < masses[tile]) break;
            rest -= masses[tile];
        }
        chosen = tile < tiles ? tile : last;
        left = tile < tiles ? rest : INFINITY;
    }
    __syncthreads();
    int first = chosen * blockDim.x;
    masses[tiles + threadIdx.x] =
        first + threadIdx.x < vocabulary ? __expf(row[first + threadIdx.x] * scale - whole.largest) : 0.f;
    __syncthreads();
    if (threadIdx.x != 0) return;
    float rest = left;
    int at = 0, last = 0;
    for (; at < blockDim.x; at++) {
        float mass = masses[tiles + at];
        if (mass > 0.f) last = at;
        if (rest < mass) break;
        rest -= mass;
    }
    if (at == blockDim.x) at = last;
    ids[blockIdx.x] = first + at;
    logprobs[blockIdx.x] = row[first + at] * scale - whole.largest - logf(whole.sum);
}
