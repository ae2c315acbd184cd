#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/log_source.h"
#include "base/progress.h"
#include "base/signals.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/train_answers.h"
#include "cli/train_plan.h"
#include "cli/verbs.h"
#include "cli/version.h"
#include "config/stage_config.h"
#include "dist/collectives.h"
#include "report/run_report.h"
#include "tensor/convert.h"
#include "train/accelerators.h"
#include "train/trainer.h"

namespace llava {

namespace {

struct TrainArguments {
  std::string config, resume, device = "cpu", dtype, report;
  std::vector<std::string> assignments;
  bool dry_run = false, plan = false, json = false, decode_images = false;
  std::size_t listed = 10;
  int threads = 0;
  std::int64_t gpus = 0;
  std::string gpu;
  double mfu = 0.4;
};

/// "cuda" means the GPU of this process.
c10::Device device_of(const std::string& name, const Place& place) {
  const c10::Device device = device_from_string(name);
  if (!place.several() || !device.is_cuda() || name.find(':') != std::string::npos) return device;
  return device_from_string(fmt::format("cuda:{}", place.local_rank));
}

/// Prints what the run will do and need.
void print_plan(const TrainConfig& config, const TrainArguments& arguments, const Place& place) {
  PlanOptions options;
  options.processes = arguments.gpus > 0 ? arguments.gpus : place.size;
  options.gpu = arguments.gpu;
  options.mfu = arguments.mfu;
  if (arguments.gpu.empty()) options.device = device_of(arguments.device, place);
  const RunPlan plan = plan_run(config, options);
  if (!arguments.json) return write_out(plan_text(plan));
  for (const StagePlan& stage : plan.stages) write_json_line(plan_json(plan, stage));
}

/// Prints what is wrong with the data of each stage; true if more of any stage than the run would bear.
bool check_data(Trainer& trainer, const TrainConfig& config, const TrainArguments& arguments) {
  ValidateOptions options;
  options.threads = config.loader_threads;
  options.listed = arguments.listed;
  options.decode_images = arguments.decode_images;
  options.stop = &stop_flag();
  bool too_many = false;
  const std::vector<DataReport> reports = trainer.check_data(options);
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const DataReport& report = reports[i];
    if (arguments.json) {
      OrderedJson line = {{"stage", config.stages[i].name}};
      line.update(report.to_json());
      write_json_line(line);
    } else {
      write_out(fmt::format("stage {}: {}", config.stages[i].name, report.to_text()));
    }
    too_many |= config.too_many_bad(static_cast<std::int64_t>(report.defective()),
                                    static_cast<std::int64_t>(report.samples));
  }
  return too_many;
}

/// Several processes on a machine share its cores; OMP_NUM_THREADS, which torchrun sets, says otherwise.
int threads_of(const TrainArguments& arguments, const Place& place) {
  if (arguments.threads != 0 || !place.several() || std::getenv("OMP_NUM_THREADS") != nullptr)
    return arguments.threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / place.local_size);
}

std::shared_ptr<Collectives> join_group(const Place& place, c10::Device device,
                                        const DistributedConfig& config) {
  if (!place.joins()) return nullptr;
  const std::chrono::seconds timeout(static_cast<std::int64_t>(config.timeout_seconds));
  auto group = std::make_shared<Collectives>(connect(place, device, timeout), place,
                                             Collectives::Options{timeout, config.check});
  log_info("train", "{} started {} processes, strategy {}", place.launcher, place.size,
           to_fields(config)["strategy"].get<std::string>());
  return group;
}

/// Trains; what stops one process is told to the others, which wait for it otherwise.
void train(TrainConfig config, TrainOptions options) {
  const std::shared_ptr<Collectives> group = options.group;
  Trainer trainer(std::move(config), std::move(options));
  try {
    trainer.run();
  } catch (const std::exception& e) {
    const auto* error = dynamic_cast<const Error*>(&e);
    if (group && (error == nullptr || error->kind() != ErrorKind::kStopped)) group->give_up(e.what());
    throw;
  }
}

int run_train(const TrainArguments& arguments) {
  if (!arguments.report.empty()) {
    write_out(fmt::format("{}\n", write_run_report(arguments.report).string()));
    return 0;
  }
  if (arguments.config.empty())
    throw Error(ErrorKind::kUsage, "nothing to do",
                "give --config FILE, or --report DIR for a run that is there");
  const Place place = find_place(process_environment());
  const bool only_plan = arguments.plan || arguments.dry_run;
  if (place.rank > 0) {
    if (only_plan) return 0;  // rank 0 prints it
    set_log_source(fmt::format("rank {}", place.rank));
    set_log_level(std::max(log_level(), LogLevel::kWarning));
  }
  set_threads(threads_of(arguments, place));
  TrainConfig config = read_train_config(arguments.config, arguments.assignments);
  if (!arguments.dtype.empty())
    for (StageConfig& stage : config.stages) stage.dtype = dtype_name(dtype_from_string(arguments.dtype));
  if (arguments.plan && !arguments.dry_run) {
    print_plan(config, arguments, place);
    return 0;
  }
  TrainOptions options;
  options.resume = arguments.resume;
  options.stop = &stop_flag();
  options.code_version = version_commit();
  options.device = device_of(arguments.device, place);
  options.sampler = make_answer_sampler();
  for (const StageConfig& stage : config.stages)
    if (stage.grpo && !stage.grpo->judge_model.empty())
      options.judge = make_answer_judge(stage.grpo->judge_model, options.device);
  if (!only_plan) {
    options.group = join_group(place, options.device, config.distributed);
    train(std::move(config), std::move(options));
    return 0;
  }
  const TrainConfig known = config;
  Trainer trainer(std::move(config), std::move(options));
  const bool bad_data = check_data(trainer, known, arguments);
  if (bad_data) {
    throw Error(ErrorKind::kInput,
                fmt::format("more samples cannot be used than max_bad_fraction ({:.1f} %) allows",
                            100 * known.max_bad_fraction),
                "repair what is listed above, or raise max_bad_fraction");
  }
  print_plan(known, arguments, place);
  trainer.dry_run();
  return 0;
}

}  // namespace

std::function<int()> setup_train(CLI::App& app) {
  auto arguments = std::make_shared<TrainArguments>();
  app.add_option("--config", arguments->config, "the training config, YAML or JSON");
  app.add_option("--report", arguments->report,
                 "write DIR/report.html from the output folder of a run, finished or not; trains nothing");
  app.add_option("--set", arguments->assignments,
                 "key.sub=value: replaces a value of the config; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--resume", arguments->resume,
                 "auto (the newest sound checkpoint of the output), or a checkpoint folder");
  app.add_flag("--dry-run", arguments->dry_run,
               "check every sample and list the unusable ones by id, load everything, build the first "
               "batches, train nothing");
  app.add_flag("--decode-images", arguments->decode_images,
               "--dry-run: decode every image, instead of looking at its header");
  app.add_option("--list", arguments->listed, "--dry-run: samples listed of each defect")
      ->capture_default_str();
  app.add_flag("--plan", arguments->plan,
               "print steps, trained parameters, tokens, memory and time, train nothing; needs neither weights nor "
               "data where the config has `recipe` and `expected`");
  app.add_option("--gpus", arguments->gpus, "--plan: so many processes, one on each device; 0: as started");
  app.add_option("--gpu", arguments->gpu,
                 fmt::format("--plan: the device: {}; without it this machine's",
                             fmt::join(accelerator_names(), ", ")));
  app.add_option("--mfu", arguments->mfu, "--plan: part of the device's product rate that is reckoned with")
      ->capture_default_str();
  app.add_option("--device", arguments->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--dtype", arguments->dtype, "instead of the stages' dtype: float32 or bfloat16");
  app.add_option("--threads", arguments->threads, "CPU threads; 0: all cores")->capture_default_str();
  app.add_flag("--json", arguments->json, "the plan as JSON lines");
  return [arguments] { return run_train(*arguments); };
}

}  // namespace llava
