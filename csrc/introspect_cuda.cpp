// `ortho_kernels._introspect.cuda`: what the launches on a GPU do, for tests and for the roofline model.
// Needs no GPU and no CUDA.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "ortho/cuda/launch_plan.h"

namespace py = pybind11;

namespace {

using namespace ortho;

Storage storage_named(const std::string& name) {
  if (name == "float64") return Storage::float64;
  if (name == "float32") return Storage::float32;
  if (name == "bfloat16") return Storage::bfloat16;
  if (name == "float16") return Storage::float16;
  throw std::invalid_argument("expected float64, float32, bfloat16 or float16, got " + name);
}

// (order, depth, storage format) and, optionally, whether the depth has the smaller stride: it has.
using Matrices = std::vector<py::tuple>;

std::vector<cuda::PlannedMatrix> planned(const Matrices& matrices) {
  std::vector<cuda::PlannedMatrix> result;
  for (const py::tuple& given : matrices) {
    cuda::PlannedMatrix matrix;
    matrix.shape = {given[0].cast<std::int64_t>(), given[1].cast<std::int64_t>()};
    matrix.storage = storage_named(given[2].cast<std::string>());
    if (given.size() > 3) matrix.depth_major = given[3].cast<bool>();
    result.push_back(matrix);
  }
  return result;
}

}  // namespace

void bind_cuda_planner(py::module_ parent) {
  py::module_ m = parent.def_submodule("cuda", "The planner of the GPU's launches.");
  m.attr("narrow_tile") = cuda::narrow_tile;
  m.attr("wide_tile") = cuda::wide_tile;
  m.attr("tile_threads") = cuda::tile_threads;
  m.attr("tile_blocks") = cuda::tile_blocks;
  m.attr("spread_blocks") = cuda::spread_blocks;
  m.attr("spread_side") = cuda::spread_side;
  m.attr("chunk_depth") = cuda::chunk_depth;
  m.attr("pass_threads") = cuda::pass_threads;
  m.attr("pass_blocks") = cuda::pass_blocks;

  py::class_<cuda::Device>(m, "Device")
      .def(py::init([](int multiprocessors) {
             cuda::Device device;
             device.multiprocessors = multiprocessors;
             return device;
           }),
           py::arg("multiprocessors"))
      .def_readonly("multiprocessors", &cuda::Device::multiprocessors);

  py::class_<cuda::ResidualWork>(m, "ResidualWork")
      .def_readonly("matrix", &cuda::ResidualWork::matrix)
      .def_readonly("in_double", &cuda::ResidualWork::in_double)
      .def_readonly("tiles", &cuda::ResidualWork::tiles)
      .def_readonly("parts", &cuda::ResidualWork::parts)
      .def_readonly("part_depth", &cuda::ResidualWork::part_depth)
      .def_readonly("first_item", &cuda::ResidualWork::first_item);
  py::class_<cuda::ResidualLaunch>(m, "ResidualLaunch")
      .def_readonly("work", &cuda::ResidualLaunch::work)
      .def_readonly("items", &cuda::ResidualLaunch::items)
      .def_readonly("blocks", &cuda::ResidualLaunch::blocks)
      .def_readonly("partial_bytes", &cuda::ResidualLaunch::partial_bytes);
  py::class_<cuda::ProductWork>(m, "ProductWork")
      .def_readonly("matrix", &cuda::ProductWork::matrix)
      .def_readonly("row_tiles", &cuda::ProductWork::row_tiles)
      .def_readonly("column_tiles", &cuda::ProductWork::column_tiles)
      .def_readonly("spread_tiles", &cuda::ProductWork::spread_tiles)
      .def_readonly("first_item", &cuda::ProductWork::first_item);
  py::class_<cuda::ProductLaunch>(m, "ProductLaunch")
      .def_readonly("work", &cuda::ProductLaunch::work)
      .def_readonly("items", &cuda::ProductLaunch::items)
      .def_readonly("spread_items", &cuda::ProductLaunch::spread_items)
      .def_readonly("spread_blocks", &cuda::ProductLaunch::spread_blocks)
      .def_readonly("plane_bytes", &cuda::ProductLaunch::plane_bytes)
      .def_readonly("blocks", &cuda::ProductLaunch::blocks);
  py::class_<cuda::IterationWork>(m, "IterationWork")
      .def_readonly("matrix", &cuda::IterationWork::matrix)
      .def_readonly("width", &cuda::IterationWork::width)
      .def_readonly("strip", &cuda::IterationWork::strip)
      .def_readonly("first_item", &cuda::IterationWork::first_item)
      .def_readonly("first_block", &cuda::IterationWork::first_block)
      .def_readonly("ranges", &cuda::IterationWork::ranges);
  py::class_<cuda::IterationLaunch>(m, "IterationLaunch")
      .def_readonly("work", &cuda::IterationLaunch::work)
      .def_readonly("items", &cuda::IterationLaunch::items)
      .def_readonly("steps", &cuda::IterationLaunch::steps)
      .def_readonly("blocks", &cuda::IterationLaunch::blocks)
      .def_readonly("partial_bytes", &cuda::IterationLaunch::partial_bytes);
  py::class_<cuda::UpdateWork>(m, "UpdateWork")
      .def_readonly("matrix", &cuda::UpdateWork::matrix)
      .def_readonly("width", &cuda::UpdateWork::width)
      .def_readonly("strip", &cuda::UpdateWork::strip)
      .def_readonly("block", &cuda::UpdateWork::block)
      .def_readonly("first_item", &cuda::UpdateWork::first_item);
  py::class_<cuda::UpdateLaunch>(m, "UpdateLaunch")
      .def_readonly("work", &cuda::UpdateLaunch::work)
      .def_readonly("items", &cuda::UpdateLaunch::items)
      .def_readonly("four_bytes", &cuda::UpdateLaunch::four_bytes);

  m.def(
      "plan_residuals",
      [](const Matrices& matrices, const cuda::Device& device) {
        return cuda::plan_residuals(planned(matrices), device);
      },
      py::arg("matrices"), py::arg("device"),
      "Launches for the residuals of (order, depth, storage format).");
  m.def(
      "plan_products",
      [](const Matrices& matrices, const cuda::Device& device, int precision) {
        return cuda::plan_products(planned(matrices), static_cast<Precision>(precision), device);
      },
      py::arg("matrices"), py::arg("device"), py::arg("precision") = 0);
  m.def(
      "plan_iterations",
      [](const Matrices& matrices, std::int64_t iterations, bool adjoints, const cuda::Device& device) {
        return cuda::plan_iterations(planned(matrices), iterations, adjoints, device);
      },
      py::arg("matrices"), py::arg("iterations"), py::arg("adjoints"), py::arg("device"));
  m.def(
      "plan_updates",
      [](const Matrices& matrices, std::int64_t pairs) {
        return cuda::plan_updates(planned(matrices), pairs, sizeof(float));
      },
      py::arg("matrices"), py::arg("pairs"));
}
