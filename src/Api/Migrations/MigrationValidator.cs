using Fleet.Api.Pages;
using Fleet.Api.Problems;
using Fleet.Api.Vms;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;

namespace Fleet.Api.Migrations;

internal static class MigrationValidator
{
    public static Problem? Validate(MigrationRequest request)
    {
        var errors = new ValidationErrors();
        CheckId(request.Vm, "$.vm", errors);
        CheckId(request.TargetHost, "$.targetHost", errors);
        VmValidator.CheckAttach(request.Attach, "$.attach", errors);
        return errors.ToProblem();
    }

    public static void CheckId(string? id, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(id))
        {
            errors.Add(path, $"An id of the form {ResourceId.Pattern}.");
        }
    }

    /// <summary>Why; kept in the audit trail.</summary>
    public static void CheckReason(string? reason, bool isNeeded, ValidationErrors errors)
    {
        if (isNeeded && string.IsNullOrWhiteSpace(reason))
        {
            errors.Add("$.reason", "Needed.");
        }

        PageValidator.CheckReason(reason, "$.reason", errors);
    }
}
