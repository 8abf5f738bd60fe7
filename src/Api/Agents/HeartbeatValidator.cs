using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;

namespace Fleet.Api.Agents;

internal static class HeartbeatValidator
{
    private const int MaximumVms = 10_000;
    private const int MaximumExceptions = 10_000;
    private const int MaximumReason = 200;

    public static Problem? Validate(HeartbeatRequest request)
    {
        var errors = new ValidationErrors();
        if (request.UnreportedHits < 0)
        {
            errors.Add("$.unreportedHits", "Not negative.");
        }

        if (request.Vms.Count > MaximumVms)
        {
            errors.Add("$.vms", $"At most {MaximumVms}.");
            return errors.ToProblem();
        }

        var seen = new HashSet<string>(StringComparer.Ordinal);
        for (var index = 0; index < request.Vms.Count; index++)
        {
            var path = $"$.vms[{index}]";
            if (request.Vms[index] is not { } vm)
            {
                errors.Add(path, "Must not be null.");
                continue;
            }

            Check(vm, path, errors);
            if (!seen.Add(vm.Vm))
            {
                errors.Add($"{path}.vm", "Given twice.");
            }
        }

        return errors.ToProblem();
    }

    private static void Check(VmStatus vm, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(vm.Vm))
        {
            errors.Add($"{path}.vm", $"An id of the form {ResourceId.Pattern}.");
        }

        if (vm.State is not (EnforcementStates.Armed or EnforcementStates.Pending or EnforcementStates.Failed))
        {
            errors.Add($"{path}.state", "armed, pending or failed.");
        }

        if (vm.ArmedGeneration is null != vm.Digest is null)
        {
            errors.Add($"{path}.digest", "Given with armedGeneration, and only with it.");
        }

        if (vm.Digest?.Length > 64)
        {
            errors.Add($"{path}.digest", "64 lower-case hex digits.");
        }

        CheckReason(vm.Reason, $"{path}.reason", errors);
        if (vm.Exceptions.Count > MaximumExceptions)
        {
            errors.Add($"{path}.exceptions", $"At most {MaximumExceptions}.");
            return;
        }

        for (var index = 0; index < vm.Exceptions.Count; index++)
        {
            Check(vm.Exceptions[index], $"{path}.exceptions[{index}]", errors);
        }
    }

    private static void Check(PageException? page, string path, ValidationErrors errors)
    {
        if (page is null)
        {
            errors.Add(path, "Must not be null.");
            return;
        }

        if (!FrameMath.IsPageShift(page.Shift) || (page.ArmedShift is { } armed && !FrameMath.IsPageShift(armed)))
        {
            errors.Add($"{path}.shift", "12, 21 or 30.");
        }

        if (page.State is not (EnforcementStates.Armed or EnforcementStates.Pending or EnforcementStates.Failed))
        {
            errors.Add($"{path}.state", "failed or pending; armed where a wider page was armed instead.");
        }

        CheckReason(page.Reason, $"{path}.reason", errors);
    }

    private static void CheckReason(string? reason, string path, ValidationErrors errors)
    {
        if (reason is not null && (reason.Length > MaximumReason || reason.Any(char.IsControl)))
        {
            errors.Add(path, $"At most {MaximumReason} characters, no control characters.");
        }
    }
}
