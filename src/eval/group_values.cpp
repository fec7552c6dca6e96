#include <cmath>
#include <set>

#include "eval/evaluate.h"

namespace bise {
namespace {

void collect(const TaskGroup& group, const std::vector<TaskGroup>& groups, std::set<std::string>& names) {
  for (const std::string& member : group.members) {
    if (!names.insert(member).second) continue;
    for (const TaskGroup& inner : groups)
      if (inner.name == member) collect(inner, groups, names);
  }
}

std::set<std::string> filters_of(const GroupMetric& metric, const std::vector<const TaskResult*>& tasks) {
  if (!metric.filters.empty()) return {metric.filters.begin(), metric.filters.end()};
  std::set<std::string> filters;
  for (const TaskResult* task : tasks)
    for (const MetricResult& result : task->metrics)
      if (result.metric == metric.metric) filters.insert(result.filter);
  return filters;
}

}  // namespace

std::vector<const TaskResult*> tasks_of(const TaskGroup& group, const std::vector<TaskGroup>& groups,
                                        const std::vector<TaskResult>& tasks) {
  std::set<std::string> names;
  collect(group, groups, names);
  std::vector<const TaskResult*> found;
  for (const TaskResult& task : tasks)
    if (names.contains(task.config.task)) found.push_back(&task);
  return found;
}

std::vector<GroupValue> group_values(const TaskGroup& group, const std::vector<TaskGroup>& groups,
                                     const std::vector<TaskResult>& tasks) {
  std::vector<GroupValue> values;
  const std::vector<const TaskResult*> members = tasks_of(group, groups, tasks);
  for (const GroupMetric& metric : group.metrics)
    for (const std::string& filter : filters_of(metric, members)) {
      double sum = 0, weights = 0, samples = 0, pooled = 0, squares = 0;
      int count = 0;
      bool errors = true;
      for (const TaskResult* task : members)
        for (const MetricResult& result : task->metrics) {
          if (result.metric != metric.metric || result.filter != filter) continue;
          const auto n = static_cast<double>(task->samples.size());
          const double weight = metric.weight_by_size ? n : 1, error = result.standard_error.value_or(0);
          sum += weight * result.value;
          weights += weight;
          samples += n;
          pooled += (n - 1) * error * error * n;
          squares += error * error;
          errors &= result.standard_error.has_value();
          ++count;
        }
      if (count == 0) continue;
      GroupValue value{metric.metric, filter, sum / weights, {}, static_cast<std::int64_t>(samples)};
      if (errors)
        value.standard_error = metric.weight_by_size ? std::sqrt(pooled / (samples - count) / samples)
                                                     : std::sqrt(squares) / count;
      values.push_back(std::move(value));
    }
  return values;
}

}  // namespace bise
