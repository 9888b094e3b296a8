// In place of PyTorch's: the random state that dropout, which is compiled out, would take from its generator.
#pragma once

#include <cstdint>
#include <tuple>

namespace at {

struct PhiloxCudaState {
    uint64_t seed;
    uint64_t offset;
};

namespace cuda::philox {

__host__ __device__ __forceinline__ std::tuple<uint64_t, uint64_t> unpack(PhiloxCudaState state) {
    return {state.seed, state.offset};
}

}  // namespace cuda::philox

}  // namespace at
