using System.Data.Common;
using Microsoft.EntityFrameworkCore.Diagnostics;

namespace Fleet.Api.Tests.Support;

/// <summary>Lets something happen just before the n-th query of a reader.</summary>
internal sealed class BeforeQuery : DbCommandInterceptor
{
    private Func<Task>? _action;
    private int _after;

    public void Arm(int after, Func<Task> action) => (_after, _action) = (after, action);

    public void Disarm() => _action = null;

    public override async ValueTask<InterceptionResult<DbDataReader>> ReaderExecutingAsync(
        DbCommand command, CommandEventData eventData, InterceptionResult<DbDataReader> result, CancellationToken cancellationToken = default)
    {
        if (_action is { } action && _after-- <= 0)
        {
            _action = null;
            await action();
        }

        return result;
    }
}
