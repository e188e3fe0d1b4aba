// `ortho_kernels._introspect`: how the native library was built, which CPU level it runs at, and the planner,
// for `doctor` and for tests. Imports without torch and without the operators.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>
#include <utility>
#include <vector>

#include "build_facts.h"
#include "ortho/cpu/level.h"
#include "ortho/cpu/tile_plan.h"

namespace py = pybind11;

void bind_cuda_planner(py::module_ parent);

namespace {

std::vector<ortho::Shape> shapes_from(const std::vector<std::pair<std::int64_t, std::int64_t>>& pairs) {
  std::vector<ortho::Shape> shapes;
  for (const auto& [order, depth] : pairs) shapes.push_back({order, depth});
  return shapes;
}

py::dict build_facts() {
  py::dict facts;
  facts["compiler"] = ORTHO_COMPILER;
  facts["flags"] = ORTHO_FLAGS;
  facts["built against"] = "torch " ORTHO_TORCH_VERSION;
  facts["runs with"] = "torch >= " ORTHO_TORCH_TARGET;
  return facts;
}

}  // namespace

PYBIND11_MODULE(_introspect, m) {
  m.doc() = "Build facts, CPU levels and the planners of the native kernels.";
  bind_cuda_planner(m);
  m.def("build_facts", &build_facts);
  m.def(
      "cpu_levels",
      [] {
        std::vector<std::pair<std::string, bool>> levels;
        for (const ortho::CpuLevel& level : ortho::cpu_levels())
          levels.emplace_back(level.name, level.supported);
        return levels;
      },
      "The levels built, lowest first, and whether this CPU has them.");
  m.def("cpu_level", &ortho::chosen_cpu_level, "The level that the kernels run at.");

  py::class_<ortho::Capacity>(m, "Capacity")
      .def(py::init<>())
      .def_readwrite("tile", &ortho::Capacity::tile)
      .def_readwrite("parts", &ortho::Capacity::parts)
      .def_readwrite("part_work", &ortho::Capacity::part_work)
      .def_readwrite("partial_sums", &ortho::Capacity::partial_sums)
      .def_readwrite("range_entries", &ortho::Capacity::range_entries);
  py::class_<ortho::ResidualTile>(m, "ResidualTile")
      .def_readonly("matrix", &ortho::ResidualTile::matrix)
      .def_readonly("group", &ortho::ResidualTile::group)
      .def_readonly("part", &ortho::ResidualTile::part)
      .def_readonly("parts", &ortho::ResidualTile::parts)
      .def_readonly("row", &ortho::ResidualTile::row)
      .def_readonly("rows", &ortho::ResidualTile::rows)
      .def_readonly("column", &ortho::ResidualTile::column)
      .def_readonly("columns", &ortho::ResidualTile::columns)
      .def_readonly("depth", &ortho::ResidualTile::depth)
      .def_readonly("depth_end", &ortho::ResidualTile::depth_end);
  py::class_<ortho::GradientTile>(m, "GradientTile")
      .def_readonly("matrix", &ortho::GradientTile::matrix)
      .def_readonly("row", &ortho::GradientTile::row)
      .def_readonly("rows", &ortho::GradientTile::rows)
      .def_readonly("column", &ortho::GradientTile::column)
      .def_readonly("columns", &ortho::GradientTile::columns);
  py::class_<ortho::DepthRange>(m, "DepthRange")
      .def_readonly("matrix", &ortho::DepthRange::matrix)
      .def_readonly("begin", &ortho::DepthRange::begin)
      .def_readonly("end", &ortho::DepthRange::end);

  using Pairs = std::vector<std::pair<std::int64_t, std::int64_t>>;
  const ortho::Capacity usual;
  m.def(
      "plan_residuals",
      [](const Pairs& shapes, const ortho::Capacity& capacity) {
        return ortho::plan_residuals(shapes_from(shapes), capacity).tiles;
      },
      py::arg("shapes"), py::arg("capacity") = usual,
      "Tiles of the residuals of matrices given as (order, depth).");
  using Triples = std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>;
  const auto products_from = [](const Triples& shapes) {
    std::vector<ortho::ProductShape> products;
    for (const auto& [rows, columns, depth] : shapes) products.push_back({rows, columns, depth});
    return products;
  };
  m.def(
      "plan_cross_grams",
      [=](const Triples& shapes, const ortho::Capacity& capacity) {
        return ortho::plan_cross_grams(products_from(shapes), capacity).tiles;
      },
      py::arg("shapes"), py::arg("capacity") = usual,
      "Tiles of the cross Grams of pairs given as (rows of A, rows of B, depth).");
  m.def(
      "plan_products",
      [=](const Triples& shapes, const ortho::Capacity& capacity) {
        return ortho::plan_products(products_from(shapes), capacity);
      },
      py::arg("shapes"), py::arg("capacity") = usual);
  m.def(
      "plan_gradients",
      [](const Pairs& shapes, const ortho::Capacity& capacity) {
        return ortho::plan_gradients(shapes_from(shapes), capacity);
      },
      py::arg("shapes"), py::arg("capacity") = usual);
  m.def(
      "plan_ranges",
      [](const Pairs& shapes, const ortho::Capacity& capacity) {
        return ortho::plan_ranges(shapes_from(shapes), capacity);
      },
      py::arg("shapes"), py::arg("capacity") = usual);
}
