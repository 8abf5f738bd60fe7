using Fleet.Data.Storage;
using Fleet.Data.Writing;

namespace Fleet.Api.Restore;

/// <summary>
/// The epoch file ahead of the database: it was put back from a backup, or the process died between the file and the commit of a new
/// store epoch. Either way a new one begins.
/// </summary>
internal sealed class RestoreAtStart(StoreStartup startup, StoreRestore restore, StoreWriter writer) : IHostedService
{
    public Task StartAsync(CancellationToken cancellationToken) => startup.WasPutBack
        ? writer.ExecuteAsync(scope => restore.BeginAsync(scope, 0, "system", "the store epoch beside the database is ahead of it"), cancellationToken)
        : Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
