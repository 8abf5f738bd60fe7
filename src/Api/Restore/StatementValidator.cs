using Fleet.Api.Agents;
using Fleet.Api.Pages;
using Fleet.Api.Problems;
using Fleet.Api.Vms;
using Fleet.Contracts;
using Fleet.Contracts.Agents;

namespace Fleet.Api.Restore;

/// <summary>The shape of a statement. What is well formed but means nothing here is not an error.</summary>
internal static class StatementValidator
{
    private const int MaximumVms = 10_000;
    private const int MaximumPages = 1_000_000;
    private const int MaximumInstance = 128;

    public static Problem? Validate(StatementRequest request)
    {
        var errors = new ValidationErrors();
        if (request.Vms.Count > MaximumVms)
        {
            errors.Add("$.vms", $"At most {MaximumVms}.");
            return errors.ToProblem();
        }

        SpoolPositions.Check(request.Spool, errors);
        var seen = new HashSet<string>(StringComparer.Ordinal);
        long pages = 0;
        for (var index = 0; index < request.Vms.Count; index++)
        {
            var path = $"$.vms[{index}]";
            if (request.Vms[index] is not { } vm)
            {
                errors.Add(path, "Must not be null.");
                continue;
            }

            if (!seen.Add(vm.Vm))
            {
                errors.Add($"{path}.vm", "Given twice.");
            }

            pages += vm.Pages.Count;
            if (pages > MaximumPages)
            {
                errors.Add($"{path}.pages", $"At most {MaximumPages} in a statement.");
                return errors.ToProblem();
            }

            Check(vm, path, errors);
        }

        return errors.ToProblem();
    }

    private static void Check(VmStatement vm, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(vm.Vm))
        {
            errors.Add($"{path}.vm", $"An id of the form {ResourceId.Pattern}.");
        }

        if (vm.MemoryInstance < 0 || vm.Right < 1 || vm.Closed < 1 || vm.RightMemoryInstance < 0)
        {
            errors.Add(path, "Numbers are above zero, and null where there are none.");
        }

        if (vm.Right is null && (vm.Live || vm.Sealed || vm.RightMemoryInstance is not null))
        {
            errors.Add($"{path}.right", "Needed where something of it is stated.");
        }

        if (vm.Right is not null && vm.RightMemoryInstance is null)
        {
            errors.Add($"{path}.rightMemoryInstance", "Needed with a right.");
        }

        if (vm.Live && vm.Closed >= vm.Right)
        {
            errors.Add($"{path}.live", "Not of a right that was given up.");
        }

        CheckInstance(vm.VmmInstance, $"{path}.vmmInstance", errors);
        CheckInstance(vm.SealedTo, $"{path}.sealedTo", errors);
        if (vm.Memory is { } memory)
        {
            VmValidator.CheckMemory(memory, $"{path}.memory", errors);
        }

        if (vm.Attach is { } attach)
        {
            VmValidator.CheckAttach(attach, $"{path}.attach", errors);
        }

        for (var index = 0; index < vm.Pages.Count; index++)
        {
            PageValidator.CheckPage(vm.Pages[index].Frame, vm.Pages[index].Shift, $"{path}.pages[{index}]", errors);
        }
    }

    private static void CheckInstance(string? text, string path, ValidationErrors errors)
    {
        if (text is not null && (text.Length is 0 or > MaximumInstance || text.Any(char.IsControl)))
        {
            errors.Add(path, $"1 to {MaximumInstance} characters, no control characters.");
        }
    }
}
