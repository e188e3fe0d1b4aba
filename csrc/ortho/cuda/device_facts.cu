#include "penalties.h"
#include "runtime.cuh"

namespace ortho::cuda {

Device device_facts(int number) {
  const auto fact = [&](cudaDeviceAttr attribute) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, attribute, number), "CUDA device " + std::to_string(number));
    return value;
  };
  return {fact(cudaDevAttrMultiProcessorCount), fact(cudaDevAttrCooperativeLaunch) != 0,
          fact(cudaDevAttrSingleToDoublePrecisionPerfRatio) <= 4};
}

}  // namespace ortho::cuda
