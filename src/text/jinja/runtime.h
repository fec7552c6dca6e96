// The state of one rendering: names, output, and the bounds that keep a hostile template from hanging the
// program or taking its memory. Lives on one thread, for one call of Template::render.
#pragma once

#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace bise::jinja {

// Names and their values; a for loop, macro, with or call block opens a scope inside another.
struct Scope {
  std::map<std::string, Value, std::less<>> variables;
  std::shared_ptr<Scope> outer;
};

class Runtime {
 public:
  Runtime(std::shared_ptr<Scope> globals, std::time_t now) : scope(std::move(globals)), now(now) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Units of work that a rendering may spend: about a byte handled or a twentieth of an expression evaluated.
  // Enough for some hundred megabytes of text; a second or two.
  static constexpr std::size_t kMaxWork = 800'000'000;
  static constexpr std::size_t kMaxOutput = std::size_t{1} << 26;  // bytes of any one string
  static constexpr int kMaxCallDepth = 60;                         // macros within macros, recursive loops
  static constexpr int kMaxEvaluationDepth = 2000;                 // nodes of the tree, through those calls

  // Throws Error when the rendering has spent kMaxWork.
  void spend(std::size_t units);
  // Throws Error when a string would be longer than kMaxOutput; spends its bytes.
  void spend_text(std::size_t bytes);

  Value lookup(std::string_view name) const;
  void assign(const std::string& name, Value value) {
    scope->variables.insert_or_assign(name, std::move(value));
  }
  // Keeps `object` in view, so that a namespace holding itself is freed in the end.
  Value new_namespace(std::shared_ptr<Namespace> object);
  // The same for a scope that a macro refers to.
  void keep(std::shared_ptr<Scope> with_macros) { macro_scopes_.push_back(std::move(with_macros)); }
  void write(const Text& text);

  std::shared_ptr<Scope> scope;
  Text* output = nullptr;
  std::time_t now;
  int line = 1;  // of the expression or statement being run

 private:
  friend class CallLevel;
  friend class Step;
  std::size_t work_ = 0;
  int call_depth_ = 0, evaluation_depth_ = 0;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<std::shared_ptr<Scope>> macro_scopes_;
};

// Makes `scope` the runtime's scope for a while.
class ScopeSwitch {
 public:
  ScopeSwitch(Runtime& runtime, std::shared_ptr<Scope> scope) : runtime_(runtime), saved_(std::move(scope)) {
    std::swap(runtime_.scope, saved_);
  }
  // A new scope inside the present one.
  explicit ScopeSwitch(Runtime& runtime)
      : ScopeSwitch(runtime, std::make_shared<Scope>(Scope{{}, runtime.scope})) {}
  ~ScopeSwitch() { std::swap(runtime_.scope, saved_); }
  ScopeSwitch(const ScopeSwitch&) = delete;
  ScopeSwitch& operator=(const ScopeSwitch&) = delete;

 private:
  Runtime& runtime_;
  std::shared_ptr<Scope> saved_;
};

// Collects what is written meanwhile.
class Capture {
 public:
  explicit Capture(Runtime& runtime) : runtime_(runtime), saved_(std::exchange(runtime.output, &text)) {}
  ~Capture() { runtime_.output = saved_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  Text text;

 private:
  Runtime& runtime_;
  Text* saved_;
};

// One node of the tree being run: notes its line and bounds the depth.
class Step {
 public:
  Step(Runtime& runtime, int line);
  ~Step() { --runtime_.evaluation_depth_; }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

 private:
  Runtime& runtime_;
};

// One macro call or recursion of a loop; throws Error beyond Runtime::kMaxCallDepth.
class CallLevel {
 public:
  explicit CallLevel(Runtime& runtime);
  ~CallLevel() { --runtime_.call_depth_; }
  CallLevel(const CallLevel&) = delete;
  CallLevel& operator=(const CallLevel&) = delete;

 private:
  Runtime& runtime_;
};

// The arguments of a call. Functions read them through bind().
class Arguments {
 public:
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;

  // In the order of `names`, from position or keyword; a name not given has no value. Throws Error, naming
  // `function`, when there are too many, one is unknown or given twice, or one of the first `required` lacks.
  class Bound {
   public:
    bool has(std::size_t index) const { return given_[index] != nullptr; }
    const Value& operator[](std::size_t index) const;
    // Typed reads; throw Error naming the function and the argument when it has another type.
    bool flag(std::size_t index, bool fallback) const;
    std::int64_t integer(std::size_t index, std::int64_t fallback) const;
    const Text& text(std::size_t index) const;

   private:
    friend class Arguments;
    std::string function_;
    std::vector<std::string_view> names_;
    std::vector<const Value*> given_;
  };
  Bound bind(std::string_view function, std::vector<std::string_view> names, std::size_t required = 0) const;
};

}  // namespace bise::jinja
