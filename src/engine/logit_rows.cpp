#include "engine/logit_rows.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace bise {
namespace {

std::int64_t smallest(const std::vector<Decoder*>& decoders, std::int64_t DecoderLimits::*limit) {
  std::int64_t result = decoders.front()->limits().*limit;
  for (const Decoder* decoder : decoders) result = std::min(result, decoder->limits().*limit);
  return result;
}

}  // namespace

LogitRows::LogitRows(std::vector<Decoder*> decoders, ThreadPool& pool, std::int64_t sequences,
                     std::int64_t max_length, const std::vector<DType>& kv_cache_dtypes)
    : decoders_(std::move(decoders)),
      pool_(pool),
      max_tokens_(smallest(decoders_, &DecoderLimits::max_tokens)),
      max_logit_rows_(smallest(decoders_, &DecoderLimits::max_logit_rows)),
      max_length_(max_length),
      blocks_per_sequence_((max_length + decoders_.front()->backend().preferred_block_size() - 1) /
                           decoders_.front()->backend().preferred_block_size()) {
  check(kv_cache_dtypes.size() == decoders_.size(), "each decoder's cache has a type");
  for (std::size_t d = 0; d < decoders_.size(); ++d) {
    Decoder* decoder = decoders_[d];
    check(decoder->config().vocab_size == decoders_.front()->config().vocab_size,
          "the decoders have one vocabulary");
    check(decoder->backend().preferred_block_size() == decoders_.front()->backend().preferred_block_size(),
          "the caches have one block size");
    const auto groups = static_cast<std::int64_t>(decoder->kv_layout().groups.size());
    caches_.push_back(decoder->make_kv_cache(sequences * groups * blocks_per_sequence_, kv_cache_dtypes[d]));
    batches_.emplace_back(max_tokens_, sequences, blocks_per_sequence_, groups);
  }
}

std::int64_t LogitRows::sequences_at_once(const Decoder& decoder, std::int64_t length) {
  return std::max<std::int64_t>(1, decoder.limits().max_tokens / length);
}

void LogitRows::run(std::span<const std::span<const std::int32_t>> sequences, std::int64_t first,
                    std::int64_t skip_last, const VisitRow& visit) {
  std::vector<std::int32_t> blocks;
  std::vector<std::int64_t> computed(sequences.size());
  for (;;) {
    for (StepBatch& batch : batches_) batch.clear();
    rows_.clear();
    places_.clear();
    for (std::size_t s = 0; s < sequences.size() && batches_.front().free_tokens() > 0; ++s) {
      const auto length = static_cast<std::int64_t>(sequences[s].size());
      check(length <= max_length_, "the sequence fits the cache");
      const std::int64_t count = std::min(length - computed[s], batches_.front().free_tokens());
      if (count == 0) continue;
      const std::int64_t row = batches_.front().tokens();
      for (std::size_t d = 0; d < decoders_.size(); ++d) {
        blocks.resize(decoders_[d]->kv_layout().groups.size() *
                      static_cast<std::size_t>(blocks_per_sequence_));
        std::iota(blocks.begin(), blocks.end(), static_cast<std::int32_t>(s * blocks.size()));
        batches_[d].add(
            sequences[s].subspan(static_cast<std::size_t>(computed[s]), static_cast<std::size_t>(count)),
            computed[s], blocks);
      }
      const std::int64_t begin = std::max(first, computed[s]);
      const std::int64_t end = std::min(computed[s] + count, length - skip_last);
      for (std::int64_t position = begin; position < end; ++position) {
        rows_.push_back(static_cast<std::int32_t>(row + position - computed[s]));
        places_.push_back({s, position});
      }
      computed[s] += count;
    }
    if (batches_.front().tokens() == 0) return;
    for (std::size_t d = 0; d < decoders_.size(); ++d) decoders_[d]->forward(batches_[d].view(), *caches_[d]);
    visit_step(visit);
  }
}

void LogitRows::visit_step(const VisitRow& visit) {
  const auto vocabulary = static_cast<std::size_t>(decoders_.front()->config().vocab_size);
  const auto most = static_cast<std::size_t>(max_logit_rows_);
  std::vector<std::span<const float>> pieces(decoders_.size());
  for (std::size_t from = 0; from < rows_.size(); from += most) {
    const std::size_t count = std::min(most, rows_.size() - from);
    for (std::size_t d = 0; d < decoders_.size(); ++d)
      pieces[d] = decoders_[d]->logits(std::span(rows_).subspan(from, count));
    pool_.parallel_for(static_cast<std::int64_t>(count), 1, [&](std::int64_t begin, std::int64_t end, int) {
      std::vector<std::span<const float>> row_logits(pieces.size());
      for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
        for (std::size_t d = 0; d < pieces.size(); ++d)
          row_logits[d] = pieces[d].subspan(row * vocabulary, vocabulary);
        visit(places_[from + row], row_logits);
      }
    });
  }
}

}  // namespace bise
