using Fleet.Contracts.Hosts;
using Fleet.Data.Entities;
using Fleet.Data.Writing;

namespace Fleet.Api.Hosts;

internal static class HostRows
{
    /// <summary>Makes a host known. A join token for it is what does so first.</summary>
    public static async Task EnsureAsync(WriteScope scope, string host, string actor)
    {
        if (await scope.Db.Hosts.FindAsync(host) is not null)
        {
            return;
        }

        var revision = scope.Change(ChangeKinds.HostCreated, ChangeResources.Host(host), actor);
        scope.Db.Hosts.Add(new HostRow { Id = host, State = HostStates.Offline, Labels = "{}", Version = revision });
    }
}
