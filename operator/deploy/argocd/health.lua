-- Health of a FineTuneJob in Argo CD: healthy when the model is written, as Argo CD has it for a Job.
local hs = {status = "Progressing", message = "No operator has seen this generation yet"}
local status = obj.status
if status == nil or status.phase == nil or status.observedGeneration ~= obj.metadata.generation then
  return hs
end

local words = {Succeeded = "Healthy", Failed = "Degraded", Suspended = "Suspended"}
hs.status = words[status.phase] or "Progressing"
hs.message = status.phase

if status.phase == "Failed" and status.failure ~= nil then
  hs.message = status.failure.reason .. ": " .. (status.failure.message or "")
elseif status.phase == "Running" and status.summary ~= nil then
  local parts = {}
  for _, name in ipairs({"progress", "metric", "eta"}) do
    local text = status.summary[name]
    if text ~= nil and text ~= "" then
      table.insert(parts, text)
    end
  end
  hs.message = table.concat(parts, ", ")
else
  for _, condition in ipairs(status.conditions or {}) do
    if condition.type == "Running" and condition.message ~= nil and condition.message ~= "" then
      hs.message = condition.message
    end
  end
end
return hs
